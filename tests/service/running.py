"""A real `runstream` process of a test: started, waited for by what it says, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from tests.forkserver import PIPE, SERVICE, Forked, forked
from tests.prepared import prepare_data_dir

RUNSTREAM = Path(sys.executable).with_name("runstream")
HELLO = """
runs:
  - name: hello
    tasks:
      - {name: one, runtime: {type: host}, steps: [{run: echo hello}]}
"""


class Service:
    """A `runstream serve` that serves."""

    def __init__(self, process: Forked, url: str) -> None:
        self.process = process
        self.url = url
        self.family: list[psutil.Process] = []
        self.look_again()

    def look_again(self) -> None:
        """Collect the processes that it has started since."""
        own = psutil.Process(self.process.pid)
        self.family = [own, *own.children(recursive=True)]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it and all its descendants are gone; return its exit code."""
        code = await self.process.wait()
        await asyncio.to_thread(psutil.wait_procs, self.family, 10)
        assert not self.alive()
        return code

    def alive(self) -> list[psutil.Process]:
        """Return its processes that still run; a zombie does not count."""
        return [process for process in self.family if process.is_running() and process.status() != "zombie"]


@contextlib.asynccontextmanager
async def serving(data_dir: Path, *options: str, **environment: str) -> AsyncIterator[Service]:
    """`runstream serve` on this directory, from the moment it serves; killed at the end if it is still there.

    In a directory that is not there yet, it finds a database with all tables.
    """
    await prepare_data_dir(data_dir)
    words = ("--data-dir", str(data_dir), "serve", *options)
    process = await forked(SERVICE, words, {**os.environ, **environment}, stdout=PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(40):
            line = (await process.stdout.readline()).decode()
        assert " at http" in line, f"it did not start: {line!r}"
        service = Service(process, line.rpartition(" at ")[2].strip())
        yield service
        if process.returncode is None:
            service.look_again()
            process.kill()
            await service.ended()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def runstream(*words: str, **environment: str) -> tuple[int, str, str]:
    """Run a command to its end; return its exit code, stdout and stderr."""
    process = await forked(SERVICE, words, {**os.environ, "COLUMNS": "200", **environment}, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(40):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(), err.decode()


async def first_line(*words: str) -> str:
    """Return the first line that a command prints, then end the command."""
    process = await asyncio.create_subprocess_exec(RUNSTREAM, *words, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(40):
            return (await process.stdout.readline()).decode().rstrip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def a_run(data_dir: Path, config: str = HELLO, *, follow: bool = True) -> str:
    """Create a run and return its id; with `follow`, wait until it has succeeded."""
    file = data_dir.parent / "config.yml"
    file.write_text(config)
    words = ["--data-dir", str(data_dir), "run", "create", "--config", str(file), *(["--follow"] if follow else [])]
    code, out, told = await runstream(*words)
    assert code == 0, told
    name = re.search(r"/user/admin/\d+", out)
    assert name is not None
    _, told, _ = await runstream("--data-dir", str(data_dir), "run", "get", name[0], "-o", "json")
    return str(json.loads(told)["id"])
