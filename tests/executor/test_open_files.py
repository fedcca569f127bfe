"""A process without free file descriptors: a task fails by name, and nothing stays open or running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import structlog

from runstream.backoff import Backoff
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import SaveContent, Step
from runstream.executor import executor as executors
from runstream.executor import pod_task, step_log
from runstream.executor.drivers.process import ProcessDriver
from runstream.executor.executor import TaskExecutor
from runstream.executor.process_tree import readable
from runstream.ids import new_id
from runstream.open_files import FILES_OF_A_TASK
from tests.executor.rig import SETTINGS, Rig, Watched, config_of, limited, rig, run_step, save_step, task_of
from tests.executor.test_caches import ALL
from tests.executor.test_clone import made
from tests.open_files import Opening, descriptors, free_descriptors
from tests.sandboxes import needs_sandbox

SENTENCE = "executor: too many open files (limit "
MODES = [pytest.param("off"), pytest.param("require", marks=needs_sandbox)]
STEPS = (run_step("echo x > f"), run_step("echo y", tty=True), save_step("f"))


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Uploads that are tried again at once, and no log of what fails."""
    for module in (pod_task, step_log):
        monkeypatch.setattr(module, "_BACKOFF", Backoff(0.001, 0.001))
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that takes tasks although descriptors are short, as between two looks at them."""
    monkeypatch.setattr(executors, "spare_files", lambda: 1000)


async def idle(it: Rig) -> tuple[Counter[str], int]:
    """Wait until no task is in work and a sandbox is ready for the next one; return the targets of this process's
    descriptors, and the number of its processes."""
    assert it.executor is not None
    await settle(it.executor, None)
    await prepared(it)
    targets = descriptors()
    children = psutil.Process().children(recursive=True)
    return targets, len([each for each in children if each.status() != psutil.STATUS_ZOMBIE])


async def prepared(it: Rig) -> None:
    """Wait until a sandbox is ready, if tasks have one, and until those of earlier tasks are gone."""
    assert it.executor is not None
    driver = it.executor.runner.capabilities
    assert isinstance(driver, ProcessDriver)
    driver.expect_tasks(True)
    await driver.spare.settled()
    if driver.sandbox == "sandboxed":
        assert driver.spare.ready is not None
        spare = driver.spare.ready.host.process
        for each in psutil.Process(spare.parent).children():
            if each.pid != spare.pid:
                await gone(each.pid)


async def gone(pid: int) -> None:
    """Wait for the end of a process, for a bounded time."""
    with contextlib.suppress(ProcessLookupError, TimeoutError):  # the caller counts what is left
        handle = os.pidfd_open(pid)
        try:
            async with asyncio.timeout(5):
                await readable(handle)
        finally:
            os.close(handle)


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


class Files:
    """Tasks of one run whose steps read and write files, each with a cache key of its own."""

    def __init__(self, it: Rig, repository: Path) -> None:
        self.it, self.repository, self.run_id = it, repository, new_id()
        self.first = task_of(
            "first", run_step("echo x > f"), save_step("f"), Step(type="save_cache", key="f", contents=ALL)
        )

    async def begin(self) -> None:
        saved = await self.it.assign(self.first, config=config_of(self.first), run_id=self.run_id)
        assert (await saved.settled()).phase is ExecutorTaskPhase.SUCCESS, await saved.log(2)

    async def __call__(self, name: str) -> Watched:
        steps = (
            Step(type="clone", name="clone"),
            Step(type="restore_workspace", dest_dir="w"),
            Step(type="restore_cache", keys=("f",), dest_dir="c"),
            Step(type="save_cache", key=name, contents=(SaveContent("c", "", ("**",)),)),
            save_step("f", source_dir="w"),
        )
        environment = {"AGOLA_REPOSITORY_URL": str(self.repository)}
        last = task_of(name, *steps, depends=("first",), environment=environment, level=1)
        watched = await self.it.assign(last, config=config_of(self.first, last), run_id=self.run_id)
        await watched.ended()
        return watched


@pytest.mark.seconds(60)
@pytest.mark.usefixtures("quiet", "unwatched")
@pytest.mark.parametrize("steps", ["commands", "files"])
@pytest.mark.parametrize("sandbox", MODES)
async def test_a_refused_descriptor_anywhere_in_a_task_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Any, steps: str
) -> None:
    async with rig(tmp_path / "executor", settings=replace(SETTINGS, sandbox=sandbox)) as it:
        assert it.executor is not None
        run: Callable[[str], Awaitable[Watched]] = partial(task, it)
        if steps == "files":
            run = files = Files(it, made(tmp_path / "r", "one"))
            await files.begin()
        done = await run("before")
        assert done.task.phase is ExecutorTaskPhase.SUCCESS, [await done.log(n) for n in range(len(done.task.steps))]
        before, failed = await idle(it), 0
        with monkeypatch.context() as patch:
            opening = Opening(patch)
            await (await run("watched")).settled()
            await idle(it)
            places = list(opening.places)
            for number, place in enumerate(places):
                opening.refused = place
                watched = await run(f"task {number}")
                ended = await watched.settled()
                while opening.refused and it.executor.under_way:
                    await settle(it.executor, 0.01)
                opening.refused = None
                await idle(it)
                if ended.phase is not ExecutorTaskPhase.SUCCESS:
                    assert ended.phase is ExecutorTaskPhase.FAILED
                    assert SENTENCE in ended.fail_error, (place, ended.fail_error)
                    failed += 1
            assert failed > len(places) / 4
        assert (await run("last")).task.phase is ExecutorTaskPhase.SUCCESS
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
