"""Timeouts of tasks whatever the executor's wall clock says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from runstream.domain import executor_task as executor_tasks
from runstream.domain.executor_task import ExecutorTask
from runstream.events.executor_task import (
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStarted,
)
from runstream.scheduler.timeouts import TaskTimeouts
from runstream.timers import Timers
from tests.executor.rig import rig, run_step, task_of
from tests.factories import task_assigned
from tests.log.memory import MemoryLog

MILLISECOND = 1_000_000
MINUTE = 60_000 * MILLISECOND
SKEWS = [timedelta(seconds=-90), timedelta(), timedelta(hours=1)]


@pytest.mark.parametrize("skew", SKEWS)
async def test_an_executor_times_its_tasks_out_by_its_monotonic_clock(tmp_path: Path, skew: timedelta) -> None:
    async with rig(tmp_path, clock=lambda: datetime.now(UTC) + skew) as it:
        short = await it.assign(task_of("short", run_step("sleep 1000")), timeout=50 * MILLISECOND)
        long = await it.assign(task_of("long", run_step("echo done")), timeout=MINUTE)
        ended = await short.settled()
        assert (ended.phase, ended.timedout) == (ExecutorTaskPhase.FAILED, True)
        assert (await long.settled()).phase is ExecutorTaskPhase.SUCCESS


@pytest.mark.parametrize("skew", SKEWS)
def test_a_scheduler_times_out_by_the_clock_of_the_log(skew: timedelta) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    deadlines = TaskTimeouts(cast("Timers", None), MemoryLog(), lambda: now, lambda _: skew.total_seconds())
    assert deadlines.due(running(now + skew)) == now + timedelta(minutes=1)


def test_a_clock_that_is_not_known_times_nothing_out_early() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    deadlines = TaskTimeouts(cast("Timers", None), MemoryLog(), lambda: now, lambda _: None)
    assert deadlines.due(running(now - timedelta(hours=1))) == now + timedelta(minutes=1)


def running(at: datetime) -> ExecutorTask:
    group = "/project/p/branch/main"
    task = executor_tasks.assigned(
        "t", task_assigned("e", "r", "rt", task="t", run_config="c", group=group, timeout=MINUTE)
    )
    for event in (ExecutorTaskStarted(at), ExecutorTaskSetupFinished(at, ExecutorTaskPhase.SUCCESS)):
        task = executor_tasks.evolve(task, event)
    return task
