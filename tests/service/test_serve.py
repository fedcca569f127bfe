"""`runstream serve` on one machine: it starts, stops and starts again, whatever happened in between."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.service.running import RUNSTREAM, Service, a_run, first_line, runstream, serving

STUBBORN = """
runs:
  - name: stubborn
    tasks:
      - {name: one, runtime: {type: host}, steps: [{run: "trap '' TERM INT; echo I run; sleep 100 & wait; sleep 100"}]}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_everything(open_path: Path, number: signal.Signals) -> None:
    async with serving(open_path / "data") as service:
        assert len(service.family) >= 3
        async with asyncio.timeout(10):
            service.signal(number)
            assert await service.ended() == 0
            assert service.process.stdout is not None
            last = (await service.process.stdout.read()).splitlines()[-1]
    assert last.decode() == f"the service in {open_path / 'data'} has stopped"
    assert not (open_path / "data" / "service.json").exists()


async def test_inherited_signals_that_are_ignored_or_blocked_do_not_matter(open_path: Path) -> None:
    begin = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD}); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    words = (sys.executable, "-c", begin, RUNSTREAM, "--data-dir", open_path / "data", "serve")
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(40):
            assert b" at http" in await process.stdout.readline()
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_it_starts_again_after_kill_9(open_path: Path) -> None:
    data_dir = open_path / "data"
    async with serving(data_dir) as first:
        run = await a_run(data_dir)
        before = what_is_kept(data_dir)
        first.process.kill()
        await first.process.wait()
        # At once: the servers that the first one left may still be stopping.
        async with serving(data_dir) as second:
            assert what_is_kept(data_dir) == before
            assert second.url == first.url
            assert not first.alive()
            assert await a_run(data_dir) != run
            code, out, _ = await runstream("--data-dir", str(data_dir), "run", "list", "--output", "json")
            assert code == 0
            assert run in out
            await stopped(second)


async def test_a_second_one_on_the_same_directory_is_refused(open_path: Path) -> None:
    async with serving(open_path / "data") as service:
        code, _, told = await runstream("--data-dir", str(open_path / "data"), "serve")
        assert code == 1
        assert f"in use by process {service.process.pid}" in told
        assert "Traceback" not in told
        await stopped(service)


async def test_a_second_signal_stops_at_once(open_path: Path) -> None:
    async with serving(open_path / "data") as service:
        service.signal(signal.SIGINT)
        service.signal(signal.SIGTERM)  # another one: two of the same may arrive as one
        assert await service.ended() == 0


async def test_a_server_that_dies_ends_the_process(open_path: Path) -> None:
    async with serving(open_path / "data") as service:
        next(process for process in service.family if process.name() == "nats-server").kill()
        assert await service.ended() == 1


async def test_sigterm_ends_a_task_that_does_not_listen(open_path: Path) -> None:
    data_dir = open_path / "data"
    async with serving(data_dir) as service:
        run = await a_run(data_dir, STUBBORN, follow=False)
        line = await first_line("--data-dir", str(data_dir), "log", "get", run, "one", "--step", "0", "--follow")
        assert line == "I run"
        service.look_again()
        async with asyncio.timeout(12):
            service.signal(signal.SIGTERM)
            assert await service.ended() == 0


async def test_in_the_background_until_it_is_stopped(open_path: Path) -> None:
    data_dir = open_path / "data"
    code, out, told = await runstream("--data-dir", str(data_dir), "serve", "--detach")
    assert code == 0, told
    assert " at http" in out
    pid = json.loads((data_dir / "service.json").read_text())["pid"]
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert (await runstream("--data-dir", str(data_dir), "stop"))[0] == 0
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 10)
    assert not [process for process in alive if process.status() != "zombie"]
    code, out, _ = await runstream("--data-dir", str(data_dir), "stop")
    assert (code, out) == (0, f"no service is running in {data_dir}\n")


def what_is_kept(data_dir: Path) -> list[str]:
    names = ["token", "nats/port", "nats/credentials.json", "postgres/port", "postgres/credentials.json"]
    return [(data_dir / name).read_text() for name in names]


async def stopped(service: Service) -> None:
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0


async def test_client_commands_find_it(open_path: Path) -> None:
    async with serving(open_path / "data") as service:
        told = json.loads((open_path / "data" / "service.json").read_text())
        assert told["url"] == service.url
        assert told["pid"] == service.process.pid
        code, out, err = await runstream("--data-dir", str(open_path / "data"), "status", "-o", "json")
        status = json.loads(out)
        assert (code, err, status["running"], status["url"]) == (0, "", True, service.url)
        assert status["process"].startswith(f"{service.process.pid}, since ")
        await stopped(service)
