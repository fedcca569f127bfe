"""What the progress of an executor task does to the task of its run (rules task-5 and task-6)."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import Attempt, Run, RunTaskStatus, with_tasks
from runstream.events.executor_task import ExecutorTaskPhase

_ACCEPTED_FROM: Mapping[ExecutorTaskPhase, frozenset[RunTaskStatus]] = {
    ExecutorTaskPhase.NOT_STARTED: frozenset({RunTaskStatus.NOT_STARTED}),
    ExecutorTaskPhase.CANCELLED: frozenset({RunTaskStatus.CANCELLED, RunTaskStatus.NOT_STARTED}),
    ExecutorTaskPhase.RUNNING: frozenset({RunTaskStatus.RUNNING, RunTaskStatus.NOT_STARTED}),
    ExecutorTaskPhase.STOPPED: frozenset({RunTaskStatus.STOPPED, RunTaskStatus.NOT_STARTED, RunTaskStatus.RUNNING}),
    ExecutorTaskPhase.SUCCESS: frozenset({RunTaskStatus.SUCCESS, RunTaskStatus.NOT_STARTED, RunTaskStatus.RUNNING}),
    ExecutorTaskPhase.FAILED: frozenset({RunTaskStatus.FAILED, RunTaskStatus.NOT_STARTED, RunTaskStatus.RUNNING}),
}
"""From which status an executor task's phase may change the run task (rule task-5)."""


def with_executor_task(run: Run, task: ExecutorTask) -> Run:
    """The run after something happened to the executor task of one of its tasks (rule task-5)."""
    current = run.tasks[task.task]
    if task.withdrawn:
        return with_tasks(run, (task.task,), withdrawn=task.id)
    if task.attempt < current.attempt:
        return with_tasks(run, (task.task,), attempts=tuple(_later(attempt, task) for attempt in current.attempts))
    changes: dict[str, object] = {
        "executor_task_id": task.id,
        "executor_task_open": not task.settled,
        "archives_pending": not task.lost
        and any(
            task.steps[index].phase is ExecutorTaskPhase.SUCCESS and not task.steps[index].archive_stored
            for index in current.archive_steps
        ),
        "start_time": task.start_time,
        "end_time": task.end_time,
    }
    if current.status in _ACCEPTED_FROM[task.phase]:
        changes["status"] = RunTaskStatus(task.phase.value)
        changes["timedout"] = task.timedout and task.phase is ExecutorTaskPhase.FAILED
        changes["failure"] = task.failure
    return with_tasks(run, (task.task,), **changes)


def _later(attempt: Attempt, task: ExecutorTask) -> Attempt:
    return replace(attempt, open=not task.settled) if attempt.executor_task_id == task.id else attempt
