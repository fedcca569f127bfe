"""An exception at any await of a task ends the task in the log and leaves none of its work running."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Generator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog
from msgspec import structs

from runstream.events.executor_task import ExecutorTaskPhase
from runstream.executor.executor import TaskExecutor
from runstream.executor.task import plain
from tests.executor.rig import config_of, rig, run_step, save_step, task_of

FAULT = "a fault that \udcff no test\0 foresaw"


class InjectedError(Exception):
    """What is raised."""


class Point:
    """The await, by its number over all coroutines of one task, at which it is raised."""

    def __init__(self, number: int) -> None:
        self.left = number

    @property
    def reached(self) -> bool:
        return self.left < 0

    def due(self) -> bool:
        self.left -= 1
        return self.left == -1


POINT: ContextVar[Point | None] = ContextVar("POINT", default=None)


class Faulty(Coroutine[Any, Any, Any]):
    """A coroutine that is thrown the fault in place of what it awaited."""

    def __init__(self, inner: Coroutine[Any, Any, Any], point: Point) -> None:
        self._inner, self._point, self._begun = inner, point, False

    def send(self, value: Any) -> Any:
        if self._begun and self._point.due():
            return self._inner.throw(InjectedError(FAULT))
        self._begun = True
        return self._inner.send(value)

    def throw(self, *args: Any) -> Any:
        return self._inner.throw(*args)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError


@pytest.fixture
def quiet() -> Iterator[None]:
    """Tracebacks take longer to write than the tasks take to fail."""
    with structlog.testing.capture_logs():
        yield


def _factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    point = POINT.get()
    return asyncio.Task(coro if point is None else Faulty(coro, point), loop=loop, **options)


@pytest.mark.seconds(60)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what a fault left is collected
@pytest.mark.usefixtures("quiet")
async def test_a_task_ends_whatever_is_raised_wherever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points: dict[str, Point] = {}
    work = TaskExecutor.begin

    def faulty_work(self: TaskExecutor, held: Any, doing: Any) -> None:
        token = POINT.set(points.get(held.known.task.task))
        try:
            work(self, held, doing)
        finally:
            POINT.reset(token)

    monkeypatch.setattr(TaskExecutor, "begin", faulty_work)
    loop = asyncio.get_running_loop()
    loop.set_task_factory(_factory)
    loop.set_exception_handler(lambda *_: None)  # a fault in a task that nothing waits for any more
    async with rig(tmp_path) as it:
        for number in itertools.count():
            point = points[f"task {number}"] = Point(number)
            task = await it.assign(task_of(f"task {number}", run_step("echo x > f; sleep 0.01"), save_step("f")))
            await task.ended()
            assert task.task.phase in (ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED)
            assert not any(step.phase is ExecutorTaskPhase.RUNNING for step in task.task.steps), number
            if not point.reached:
                break
        assert number > 5  # about ten places; how many depends on what is there at once
    assert not [one for one in psutil.Process().children(recursive=True) if "sleep 0.01" in " ".join(one.cmdline())]


def test_the_message_of_a_fault_can_be_stored() -> None:
    assert plain(FAULT) == "a fault that ? no test\ufffd foresaw"


async def test_a_run_config_whose_key_is_not_the_name_of_its_task_is_refused_by_name(tmp_path: Path) -> None:
    task = task_of("task", run_step("true"))
    forged = structs.replace(config_of(task), tasks={"task": task_of("other", run_step("true"))})
    async with rig(tmp_path) as it:
        done = await (await it.assign(task, config=forged)).settled()
    assert done.phase is ExecutorTaskPhase.FAILED
    assert "task 'task' of the run config has the name 'other'" in done.fail_error
    assert "KeyError" not in done.fail_error
