"""Tasks that do nothing and succeed at once: what is measured with them is everything else."""

from __future__ import annotations

from runstream.events.executor_task import (
    ExecutorTaskEvent,
    ExecutorTaskFinished,
    ExecutorTaskLogLost,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
)
from runstream.executor.task import Ended, Job, lost_logs


class NoopRunner:
    """Runs every task in no time, without files and logs: two commits a task."""

    allow_host = True
    allow_pod = True
    sandbox = "none: tasks do nothing"

    async def setup(self) -> None:
        """Nothing."""

    async def run(self, job: Job) -> Ended:
        """Every step succeeds."""
        at, success = job.clock(), ExecutorTaskPhase.SUCCESS
        events: list[ExecutorTaskEvent] = [ExecutorTaskSetupFinished(at, success), ExecutorTaskLogLost(None)]
        for step in range(len(job.task.steps)):
            events.append(ExecutorTaskStepStarted(step, at))
            events.append(ExecutorTaskStepFinished(step, at, success, 0))
            events.append(ExecutorTaskLogLost(step))
        events.append(ExecutorTaskFinished(at, success, ""))
        return Ended(tuple(events))

    def kept(self, task_id: str) -> bool:
        """Nothing is."""
        return False

    async def recover(self, job: Job) -> Ended:
        """There are no logs."""
        return Ended(lost_logs(job.task))

    async def sweep(self, kept: frozenset[str]) -> None:
        """Nothing is left anywhere."""

    async def close(self) -> None:
        """Nothing is held."""
