"""A closed pipe, a loop that leaves a stream early, and a full disk cause no traceback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runstream.service.edge import BROKEN_PIPE
from tests.cli.conftest import Command
from tests.cli.service import Service
from tests.gateway.world import TOKEN

_LEAVES = """
import asyncio, os
from runstream.client import Client

async def first(client):
    async for commit in client.events.tail("start"):
        return commit

async def main():
    async with Client(os.environ["RUNSTREAM_URL"], token=os.environ["RUNSTREAM_TOKEN"]) as client:
        async for commit in client.events.tail("start"):
            break
        await first(client)
        held = client.events.tail("start")
        await anext(held)

asyncio.run(main())
"""


@pytest.fixture
def environment(runstream: Command, served: Service, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "r.yml").write_text("runs: [{name: r, tasks: [{name: t, runtime: {type: host}, steps: [{run: x}]}]}]\n")
    assert runstream("run", "create", "--config", "r.yml", "--follow").code == 0
    return {**os.environ, "RUNSTREAM_URL": served.url, "RUNSTREAM_TOKEN": TOKEN}


async def _ran(environment: dict[str, str], *command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, err = await process.communicate()
    return process.returncode or 0, err.decode()


async def test_a_reader_that_leaves_ends_a_command_without_a_word(environment: dict[str, str]) -> None:
    program = Path(sys.executable).parent / "runstream"
    # `true` has left before the first line is written: no line has to come after it to meet the closed pipe.
    line = f"set -o pipefail; {program} events tail --from start | true"
    assert await _ran(environment, "bash", "-c", line) == (BROKEN_PIPE, "")


@pytest.mark.parametrize("words", ["--help", "run --help", "run list --help"])
async def test_a_reader_of_help_may_leave(environment: dict[str, str], words: str) -> None:
    program = Path(sys.executable).parent / "runstream"
    # `true` has ended, and with it the pipe's only reader, before the program begins.
    line = f"exec 3> >(true); wait $!; {program} {words} >&3"
    assert await _ran(environment, "bash", "-c", line) == (BROKEN_PIPE, "")


async def test_a_command_that_waits_notices_that_its_reader_left(environment: dict[str, str]) -> None:
    program = Path(sys.executable).parent / "runstream"
    line = f"set -o pipefail; {program} events tail --from end | true"
    assert await _ran(environment, "bash", "-c", line) == (BROKEN_PIPE, "")


_CLOSED = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all": "<&- >&- 2>&-"}


@pytest.mark.parametrize("closed", _CLOSED)
@pytest.mark.parametrize(("words", "status"), [("run list", 0), ("log get latest", 0), ("--help", 0), ("nothing", 2)])
async def test_a_command_does_without_closed_streams(
    environment: dict[str, str], words: str, status: int, closed: str
) -> None:
    program = Path(sys.executable).parent / "runstream"
    code, err = await _ran(environment, "bash", "-c", f"{program} {words} {_CLOSED[closed]}")
    assert (code, "bug" in err, "NoneType" in err) == (status, False, False)
    assert not (err and status == 0)


async def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    script = tmp_path / "opens.py"
    script.write_text(
        "import os, subprocess, sys\n"
        "from runstream.cli.terminal_text import prepare_streams\n"
        "prepare_streams()\n"
        f"file = open({str(tmp_path / 'opened')!r}, 'w+')\n"
        "subprocess.run(['sh', '-c', 'cat; echo lost; echo lost >&2'], check=True)\n"
        "print('lost'); print('lost', file=sys.stderr)\n"
        "assert (sys.stdin.read(), file.fileno() > 2) == ('', True)\n"
        "file.seek(0); assert file.read() == ''\n"
    )
    for closed in _CLOSED.values():
        code, _ = await _ran({**os.environ}, "bash", "-c", f"{sys.executable} {script} {closed} <&-")
        assert code == 0, closed


@pytest.mark.parametrize("words", ["events tail --from start", "run list", "--help"])
async def test_a_full_disk_is_one_error(environment: dict[str, str], words: str) -> None:
    program = Path(sys.executable).parent / "runstream"
    code, err = await _ran(environment, "bash", "-c", f"{program} {words} >/dev/full")
    assert (code, err.splitlines()[0]) == (1, "error: cannot write the output: No space left on device")
    assert len(err.splitlines()) == 2


async def test_a_loop_over_a_stream_can_be_left(environment: dict[str, str]) -> None:
    assert await _ran(environment, sys.executable, "-c", _LEAVES) == (0, "")
