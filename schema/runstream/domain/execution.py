"""How the progress of an executor task changes the task of its run (rules task-5 and task-6)."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import FailedAttempt, RunState, RunTaskStatus, with_tasks
from runstream.events.executor_task import ExecutorTaskPhase

_OPEN = frozenset({RunTaskStatus.NOT_STARTED, RunTaskStatus.RUNNING})
_REPLACEABLE: Mapping[ExecutorTaskPhase, frozenset[RunTaskStatus]] = {
    **{phase: _OPEN | {RunTaskStatus(phase)} for phase in ExecutorTaskPhase},
    ExecutorTaskPhase.NOT_STARTED: frozenset({RunTaskStatus.NOT_STARTED}),
    ExecutorTaskPhase.CANCELLED: frozenset({RunTaskStatus.CANCELLED, RunTaskStatus.NOT_STARTED}),
}
"""The statuses of the run task that each phase of its executor task may replace by the status of its own name (rule
task-5)."""


def with_executor_task(run: RunState, task: ExecutorTask) -> RunState:
    """Return the run after an event of the executor task of one of its tasks (rule task-5)."""
    current = run.tasks[task.task]
    if task.withdrawn:
        return with_tasks(run, (task.task,), withdrawn=task.id)
    if task.attempt < current.attempt:
        return with_tasks(run, (task.task,), attempts=tuple(_later(attempt, task) for attempt in current.attempts))
    changes: dict[str, object] = {
        "executor_task_id": task.id,
        "executor_task_open": not task.settled,
        "archives_pending": bool(current.archive_steps)
        and not task.lost
        and any(
            task.steps[index].phase is ExecutorTaskPhase.SUCCESS and not task.steps[index].archive_stored
            for index in current.archive_steps
        ),
        "start_time": task.start_time,
        "end_time": task.end_time,
    }
    if current.status in _REPLACEABLE[task.phase]:
        changes["status"] = RunTaskStatus(task.phase)
        changes["timedout"] = task.timedout and task.phase is ExecutorTaskPhase.FAILED
        changes["failure"] = task.failure
    return with_tasks(run, (task.task,), **changes)


def _later(attempt: FailedAttempt, task: ExecutorTask) -> FailedAttempt:
    return replace(attempt, open=not task.settled) if attempt.executor_task_id == task.id else attempt
