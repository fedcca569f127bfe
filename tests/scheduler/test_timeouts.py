"""Timers of tasks: one that cannot be set, or that waits for the log, holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import cast

import orjson
import pytest
from structlog.testing import capture_logs

from runstream.commits import StoredCommit
from runstream.domain import executor_task as executor_tasks
from runstream.domain.executor_task import ExecutorTask
from runstream.errors import InternalError
from runstream.events.executor_task import (
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStarted,
)
from runstream.scheduler import timeouts
from runstream.scheduler.timeouts import MAX_CONCURRENT, TaskTimeouts
from runstream.subjects import Address
from runstream.timers import Timers
from tests.factories import task_assigned
from tests.log.memory import MemoryLog

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class _Timers:
    """Timers of which some cannot be set, and which come due as a test says."""

    def __init__(self, *due: str) -> None:
        self.refused = {"bad"}
        self.set: asyncio.Queue[str] = asyncio.Queue()
        self.done: asyncio.Queue[str] = asyncio.Queue()
        self._due = due

    async def schedule(self, key: str, _due: datetime, _payload: bytes) -> None:
        await asyncio.sleep(0)
        if key in self.refused:
            raise InternalError("no", code="logUnreachable")
        self.set.put_nowait(key)

    async def due(self) -> AsyncIterator[_Due]:
        for key in self._due:
            yield _Due(key, self.done)
        await asyncio.Event().wait()


class _Due:
    def __init__(self, key: str, acknowledged: asyncio.Queue[str]) -> None:
        self.key = key
        self.payload = orjson.dumps({"partition": 0, "task": key, "executor": "e"})
        self._acknowledged = acknowledged

    async def done(self) -> None:
        self._acknowledged.put_nowait(self.key)


class _Log(MemoryLog):
    """A log that does not answer for some aggregates."""

    async def history(self, address: Address, *args: object, **options: object) -> list[StoredCommit]:
        if address.id.startswith("bad"):
            await asyncio.Event().wait()
        if address.id == "cut":
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(waiter.cancel)
            await waiter
        return []


@asynccontextmanager
async def running(timers: _Timers) -> AsyncIterator[TaskTimeouts]:
    made = TaskTimeouts(cast("Timers", timers), _Log(), lambda: NOW)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_timer_that_cannot_be_set_now_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "RETRY_SECONDS", 0)
    timers = _Timers()
    async with running(timers) as it:
        it.arm([begun("bad"), begun("first"), begun("second")])
        assert [await timers.set.get() for _ in range(2)] == ["first", "second"]
        timers.refused.clear()
        assert await timers.set.get() == "bad"


async def test_a_timer_that_waits_for_the_log_holds_up_no_other() -> None:
    timers = _Timers(*(f"bad {n}" for n in range(MAX_CONCURRENT - 1)), "good", "another")
    async with running(timers):
        assert [await timers.done.get() for _ in range(2)] == ["good", "another"]


async def test_a_timer_whose_wait_is_cancelled_by_a_library_is_tried_again_and_holds_up_no_other() -> None:
    timers = _Timers("cut", "good")
    with capture_logs() as said:
        async with running(timers):
            assert await timers.done.get() == "good"
    assert [record["action"] for record in said] == ["timeout_postponed"]


def begun(task_id: str) -> ExecutorTask:
    group = "/project/p/branch/main"
    assignment = task_assigned("e", "r", "rt", task="t", run_config="c", group=group, timeout=60_000_000_000)
    task = executor_tasks.assigned(task_id, assignment)
    for event in (ExecutorTaskStarted(NOW), ExecutorTaskSetupFinished(NOW, ExecutorTaskPhase.SUCCESS)):
        task = executor_tasks.evolve(task, event)
    return task
