"""A real `runstream` process of a test: started, waited for by what it says, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

RUNSTREAM = Path(sys.executable).with_name("runstream")


class Service:
    """A `runstream serve` that serves."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url
        self.family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it and all that it started are gone."""
        code = await self.process.wait()
        await asyncio.to_thread(psutil.wait_procs, self.family, 10)
        assert not self.alive()
        return code

    def alive(self) -> list[psutil.Process]:
        """What of it still runs; one that has ended and that nobody has asked about is not running."""
        return [process for process in self.family if process.is_running() and process.status() != "zombie"]


@contextlib.asynccontextmanager
async def serving(data_dir: Path, *options: str, **environment: str) -> AsyncIterator[Service]:
    """`runstream serve` on this directory, from the moment it serves; killed at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        RUNSTREAM,
        *("--data-dir", str(data_dir), "serve", *options),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(40):
            line = (await process.stdout.readline()).decode()
        assert " at http" in line, f"it did not start: {line!r}"
        yield Service(process, line.rpartition(" at ")[2].strip())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def runstream(*words: str, **environment: str) -> tuple[int, str, str]:
    """Run a command to its end: its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        RUNSTREAM,
        *words,
        env={**os.environ, "COLUMNS": "200", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(40):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(), err.decode()
