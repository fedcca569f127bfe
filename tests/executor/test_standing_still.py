"""The tasks of an executor whose process stands still are ended by their agents while its lease is still there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from runstream.events.executor_task import ExecutorTaskInterrupted, ExecutorTaskPhase
from runstream.executor.process_tree import readable
from runstream.executor.task import EndReason
from runstream.leases import open_leases
from tests.docker_engine import IMAGE, DockerEngine
from tests.executor.rig import SETTINGS, rig, run_step, task_of
from tests.executor.test_life import appears
from tests.leases.test_leases import until
from tests.log.servers import connected
from tests.sandboxes import needs_sandbox

LEASE_SECONDS = 3
SANDBOXES = pytest.mark.parametrize("sandbox", ["off", pytest.param("require", marks=needs_sandbox)])
BEAT = "while echo beat; do sleep 0.05; done"
BEATS = f"mkfifo ~/beats; echo > ~/ready; (setsid sh -c '{BEAT}' & {BEAT}) > ~/beats"
"""A command whose processes, one of them in a session of its own, write heartbeats into a pipe."""
ROOT = Path(__file__).parents[2]


async def silent(pipe: int) -> None:
    """Return when no process has the writing end any more."""
    while True:
        await readable(pipe)
        if not os.read(pipe, 1 << 16):
            return


@contextlib.asynccontextmanager
async def executing(folder: Path, url: str, namespace: str, *words: str) -> AsyncIterator[tuple[Process, Path]]:
    """Yield an executor's process and the folder of its task, whose sandbox, command and engine are given."""
    arguments = ("-m", "tests.executor.standing_still", str(folder), url, namespace, str(LEASE_SECONDS), *words)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = b""
        while not line.startswith(b"/"):
            line = await process.stdout.readline()
        yield process, Path(line.decode().strip())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def end_while_it_stands_still(
    process: Process, url: str, namespace: str, end: Coroutine[None, None, object]
) -> None:
    """Stop an executor's process, wait for the end of its task before that of its lease, and let it go on."""
    async with contextlib.AsyncExitStack() as closing:
        nc = await closing.enter_async_context(connected(url))
        board = await open_leases(nc, f"{namespace}_executors", seconds=LEASE_SECONDS)
        watch = await closing.enter_async_context(board.watching())
        process.send_signal(signal.SIGSTOP)
        expiry = asyncio.create_task(until(watch, "expired"))
        ending = asyncio.create_task(end)
        await asyncio.wait({expiry, ending}, return_when=asyncio.FIRST_COMPLETED)
        in_time = not expiry.done()
        process.send_signal(signal.SIGCONT)
        expiry.cancel()
        await asyncio.wait({expiry, ending})
    assert in_time
    assert process.stdout is not None
    output = (await process.stdout.read()).decode().splitlines()
    assert {EndReason.LEASE.value, ExecutorTaskInterrupted.__name__} <= set(output)


@SANDBOXES
async def test_the_task_of_a_stopped_executor_ends_before_its_lease(
    tmp_path: Path, nats_url: str, namespace: str, sandbox: str
) -> None:
    async with executing(tmp_path, nats_url, namespace, sandbox, BEATS) as (process, folder):
        await appears(folder / "home" / "ready")
        pipe = os.open(folder / "home" / "beats", os.O_RDONLY | os.O_NONBLOCK)
        try:
            await readable(pipe)
            await end_while_it_stands_still(process, nats_url, namespace, silent(pipe))
        finally:
            os.close(pipe)


async def test_the_container_of_a_stopped_executor_ends_before_its_lease(
    tmp_path: Path, nats_url: str, namespace: str, docker_engine: DockerEngine
) -> None:
    words = ("off", "while :; do sleep 0.05; done", docker_engine.url, IMAGE)
    async with executing(tmp_path, nats_url, namespace, *words) as (process, folder):
        await appears(folder / "0.log")
        (container,) = await asyncio.to_thread(docker_engine.containers, taskid=folder.name)
        ends = asyncio.to_thread(docker_engine.cli, "wait", container["ID"])
        await end_while_it_stands_still(process, nats_url, namespace, ends)


@SANDBOXES
async def test_a_task_that_was_ended_while_the_executor_stood_still_has_lost_the_lease(
    tmp_path: Path, sandbox: str
) -> None:
    """The agent's end and the lost lease reach the executor at the same moment: the reason must be the lease."""
    async with rig(tmp_path, settings=replace(SETTINGS, sandbox=sandbox)) as it:  # type: ignore[arg-type]
        it.leases.renewed(time.monotonic() + 0.3)
        task = await it.assign(task_of("task", run_step("while :; do sleep 0.05; done")))
        ended = await task.ended()
        assert (ended.phase, ended.fail_error) == (ExecutorTaskPhase.FAILED, EndReason.LEASE.value)


async def test_a_task_outlasts_each_window_that_is_renewed_in_time(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        window = time.monotonic() + 1.5
        it.leases.renewed(window)
        task = await it.assign(task_of("task", run_step("sleep 1.6")))
        await task.step_begun()
        it.leases.renewed(window + 60)
        assert (await task.ended()).phase is ExecutorTaskPhase.SUCCESS
