"""Forked processes are what fresh ones are: with words, environment, files, signals and ends of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import psutil
import pytest
from tests.forkserver import PIPE, SERVICE, Forked, forked

SHOWN = "import json, os; print(json.dumps([os.getpid(), dict(os.environ), os.getcwd(), os.listdir('/proc/self/fd')]))"


async def running(statement: str) -> Forked:
    """A process that runs this statement once."""
    return await forked("timeit", ["-n", "1", "-r", "1", statement], {"ONLY": "this"}, stdout=PIPE, stderr=PIPE)


async def test_it_has_what_it_was_given_and_nothing_else() -> None:
    first = await running("input()")  # ends at once: there is no input
    process = await running(SHOWN)
    out, err = await process.communicate()
    pid, environment, folder, files = json.loads(out.splitlines()[0])
    assert (pid, environment, folder, err) == (process.pid, {"ONLY": "this"}, os.getcwd(), b"")  # noqa: PTH109
    assert sorted(int(file) for file in files)[:3] == [0, 1, 2]
    assert len(files) == 4  # the folder itself is open, too
    assert await first.wait() == 1


async def test_a_long_output_is_whole() -> None:
    out, err = await (
        await running("import sys; print('x' * 10**6); print('y' * 10**6, file=sys.stderr)")
    ).communicate()
    assert out.count(b"x") == err.count(b"y") == 10**6


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_signal_ends_it(number: signal.Signals) -> None:
    process = await running("import threading; print('there', flush=True); threading.Event().wait()")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"there\n"
    process.send_signal(number)
    assert await process.wait() == process.returncode == -number
    assert not psutil.pid_exists(process.pid)


async def test_many_at_once_end_with_codes_of_their_own() -> None:
    processes = await asyncio.gather(*(running(f"import os; os._exit({code})") for code in range(20)))
    assert await asyncio.gather(*(process.wait() for process in processes)) == list(range(20))


async def test_the_command_of_the_service() -> None:
    process = await forked(SERVICE, ["run", "destroy"], dict(os.environ), stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert b"destroy" in err
