"""Tasks that succeed at once without running anything, to measure the cost of everything else."""

from __future__ import annotations

from collections.abc import Callable

from runstream.events.executor_task import (
    ExecutorTaskEvent,
    ExecutorTaskFinished,
    ExecutorTaskLogLost,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
)
from runstream.executor.drivers.capabilities import Capabilities
from runstream.executor.task import Ended, Job, lost_logs


class _AnyTask:
    """The capabilities of an executor that takes every task."""

    allow_host = True
    allow_pod = True
    sandbox = "none: tasks do nothing"
    engine = ""
    engine_away = ""
    engine_cpu = 0
    engine_memory = 0
    archs: tuple[str, ...] = ()

    def on_change(self, changed: Callable[[], None]) -> None:
        """Do nothing: there is no engine that could change."""

    def act_until(self, until: float, lapsed: Callable[[], None]) -> None:
        """Do nothing: tasks take no time."""

    def expect_tasks(self, expected: bool) -> None:
        """Do nothing: there is nothing to prepare."""


class NoopRunner:
    """A runner whose tasks take no time and have neither files nor logs: two commits a task."""

    capabilities: Capabilities = _AnyTask()

    async def setup(self) -> None:
        """Do nothing."""

    async def run(self, job: Job) -> Ended:
        """Report success for every step."""
        at, success = job.clock(), ExecutorTaskPhase.SUCCESS
        events: list[ExecutorTaskEvent] = [ExecutorTaskSetupFinished(at, success), ExecutorTaskLogLost(None)]
        for step in range(len(job.task.steps)):
            events.append(ExecutorTaskStepStarted(step, at))
            events.append(ExecutorTaskStepFinished(step, at, success, 0))
            events.append(ExecutorTaskLogLost(step))
        events.append(ExecutorTaskFinished(at, success, ""))
        return Ended(tuple(events))

    def kept(self, task_id: str) -> bool:
        """Return False: tasks leave nothing."""
        return False

    async def recover(self, job: Job) -> Ended:
        """Report the logs as lost: there are none."""
        return Ended(lost_logs(job.task))

    async def sweep(self, kept: frozenset[str]) -> None:
        """Do nothing: tasks leave nothing behind."""

    async def close(self) -> None:
        """Do nothing."""
