"""Forked processes are what fresh ones are: with words, environment, files, signals and ends of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from tests.forkserver import PIPE, SERVICE, Forked, commands, forked

from runstream.release import version

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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
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


async def in_a_shell(script: str) -> tuple[int, str, str]:
    """Run a script that finds `runstream` in its path; return its exit code, stdout and stderr."""
    environment = {**os.environ, "PATH": f"{commands()}:{os.environ['PATH']}"}
    process = await asyncio.create_subprocess_exec("bash", "-c", script, env=environment, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_shell_has_the_command_with_its_files_and_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("runs: 1\n")
    code, out, err = await in_a_shell(
        f"cd {tmp_path}; runstream --version | cat; runstream config check - < config.yml; echo $?; runstream destroy"
    )
    assert code == 2
    assert out.splitlines() == [version(), "2"]
    assert "runs" in err
    assert "destroy" in err


async def test_a_signal_to_the_command_of_a_shell_ends_it() -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        words = ("--url", f"http://127.0.0.1:{port}", "--token", "t", "run", "list")
        process = await asyncio.create_subprocess_exec(commands() / "runstream", *words)
        await asked.wait()
        process.terminate()
        assert await process.wait() == 128 + signal.SIGTERM
        await left.wait()
