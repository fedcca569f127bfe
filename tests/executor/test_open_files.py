"""A process without free file descriptors: a task fails by name, and nothing stays open or running."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import io
import os
import re
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import structlog

from runstream.backoff import Backoff
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.executor import beneath, task_root
from runstream.executor import executor as executors
from runstream.executor import runner as runners
from runstream.executor.executor import TaskExecutor
from runstream.ids import new_id
from runstream.open_files import FILES_OF_A_TASK
from tests.executor.rig import SETTINGS, Rig, Watched, limited, rig, run_step, save_step, task_of
from tests.sandboxes import needs_sandbox

SENTENCE = "executor: too many open files (limit "
MODES = [pytest.param("off"), pytest.param("require", marks=needs_sandbox)]
STEPS = (run_step("echo x > f"), run_step("echo y", tty=True), save_step("f"))
OPENING: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("open", "pipe", "pidfd_open", "dup", "openpty", "memfd_create", "listdir", "scandir")),
    *((socket, name) for name in ("socketpair", "recv_fds")),
    *((builtins, "open"), (io, "open"), (beneath, "open_beneath"), (task_root, "open_beneath")),
)
"""The functions that make descriptors in the executor."""


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Uploads that are tried again at once, and no log of what fails."""
    monkeypatch.setattr(runners, "_BACKOFF", Backoff(0.001, 0.001))
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that takes tasks although descriptors are short, as between two looks at them."""
    monkeypatch.setattr(executors, "spare_files", lambda: 1000)


@contextlib.contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Leave this process so many descriptors to open; the kernel refuses any further one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    last = max(int(link.name) for link in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(min(count, len(held))):
            os.close(held.pop())
        missing = count - min(count, len(held) + count)
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] + missing, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


class Opening:
    """The calls that make descriptors, of which the one with the number `refused` finds none."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.refused = self.count = -1
        for module, name in OPENING:
            patch.setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count != self.refused:
                return function(*args, **kwargs)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            try:
                return function(*args, **kwargs)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        return call


def descriptors() -> Counter[str]:
    """Count the descriptors of this process by their targets, without the numbers in these."""
    found = Counter[str]()
    for link in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # that of the list itself
            found[re.sub(r"[0-9a-f-]{36}|\d+", "N", str(link.readlink()))] += 1
    return found


async def idle(it: Rig) -> tuple[Counter[str], int]:
    """Wait until no task is in work; return the targets of this process's descriptors, and the number of its
    processes."""
    assert it.executor is not None
    await settle(it.executor, None)
    targets = descriptors()
    children = psutil.Process().children(recursive=True)
    return targets, len([each for each in children if each.status() != psutil.STATUS_ZOMBIE])


async def settle(executor: TaskExecutor, seconds: float | None) -> None:
    """Wait until the executor has no task in work, or for this time."""
    works = {work for work in asyncio.all_tasks() if work.get_name().startswith("task ")}
    while works and executor.under_way:
        _, works = await asyncio.wait(works, timeout=seconds)
        if seconds is not None:
            return


async def task(it: Rig, name: str) -> Watched:
    watched = await it.assign(task_of(name, *STEPS))
    await watched.ended()
    return watched


@pytest.mark.seconds(60)
@pytest.mark.usefixtures("quiet", "unwatched")
@pytest.mark.parametrize("sandbox", MODES)
async def test_a_refused_descriptor_anywhere_in_a_task_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Any
) -> None:
    async with rig(tmp_path, settings=replace(SETTINGS, sandbox=sandbox)) as it:
        await task(it, "first")
        assert it.executor is not None
        before = await idle(it)
        with monkeypatch.context() as patch:
            opening = Opening(patch)
            for number in range(1000):
                opening.refused, opening.count = number, -1
                watched = await task(it, f"task {number}")
                while opening.count < number and it.executor.under_way:
                    await settle(it.executor, 0.01)
                calls, opening.refused = opening.count, -1
                await idle(it)
                assert watched.task.phase in (ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED)
                assert "Errno" not in watched.task.fail_error, watched.task.fail_error
                assert "IndexError" not in watched.task.fail_error, watched.task.fail_error
                if calls < number:
                    break
            assert number > 30
        assert (await task(it, "last")).task.phase is ExecutorTaskPhase.SUCCESS
        assert await idle(it) == before


@pytest.mark.seconds(60)
@pytest.mark.usefixtures("quiet", "unwatched")
@pytest.mark.parametrize("sandbox", MODES)
async def test_a_task_without_descriptors_fails_by_name_and_the_next_one_succeeds(tmp_path: Path, sandbox: Any) -> None:
    async with rig(tmp_path, settings=replace(SETTINGS, sandbox=sandbox)) as it:
        await task(it, "first")
        before = await idle(it)
        failed = 0
        for count in range(14):
            with free_descriptors(count):
                watched = await task(it, f"task {count}")
            await watched.settled()
            if watched.task.phase is ExecutorTaskPhase.FAILED:
                failed += 1
                assert SENTENCE in watched.task.fail_error, (count, watched.task.fail_error)
        assert failed > 2
        assert (await task(it, "last")).task.phase is ExecutorTaskPhase.SUCCESS
        assert await idle(it) == before


@pytest.mark.usefixtures("quiet")
async def test_an_executor_short_of_descriptors_takes_no_task_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "ROOM_SECONDS", 0.02)
    async with rig(tmp_path) as it:

        async def offers(field: str) -> Any:
            while not (value := orjson.loads(it.leases.value())[field]):
                it.leases.given.touching.clear()
                await it.leases.given.touching.wait()
            return value

        with free_descriptors(3):
            assert re.fullmatch(r"too many open files \(limit \d+; raise LimitNOFILE\)", await offers("full"))
            waiting = await it.assign(task_of("task", *STEPS))
            await offers("open_tasks")
            assert await waiting.commits() == 1, "it has not begun"
        assert (await waiting.settled()).phase is ExecutorTaskPhase.SUCCESS
        assert orjson.loads(it.leases.value())["full"] == ""


@pytest.mark.usefixtures("quiet")
async def test_no_more_tasks_begin_at_once_than_there_are_descriptors_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "ROOM_SECONDS", 3600)
    monkeypatch.setattr(executors, "spare_files", lambda: 3 * FILES_OF_A_TASK)
    async with rig(tmp_path, settings=limited(20)) as it:
        blocked = [run_step("until test -e ~/go; do sleep 0.01; done")]
        runs = ["00000000" + new_id()[8:] for _ in range(5)]  # in one partition, so that they begin in this order
        tasks = [await it.assign(task_of(f"task {number}", *blocked), run_id=run) for number, run in enumerate(runs)]
        for begun in tasks[:3]:
            await begun.step_begun()
        assert [await each.commits() for each in tasks[3:]] == [1, 1]
        for each in tasks:
            await each.step_begun()
            (it.task_folder(each) / "home" / "go").touch()
        assert {(await each.settled()).phase for each in tasks} == {ExecutorTaskPhase.SUCCESS}
