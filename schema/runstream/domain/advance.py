"""How a run advances: retries, results, skips, approvals, and which tasks can run (rules schedule-1 to schedule-8).

Each function returns the events that follow from one state; `advance` repeats them until nothing more follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from runstream.domain.clocks import decide_timeout, may_begin
from runstream.domain.retries import decide_retries
from runstream.domain.run import RunState, RunTask, RunTaskStatus, evolve
from runstream.events.run import (
    RunArchived,
    RunEvent,
    RunFinished,
    RunResultSet,
    RunTaskApprovalRequested,
    RunTasksCancelled,
    RunTasksSkipped,
)
from runstream.events.run_config import Condition, Depend, RunConfig
from runstream.run_states import RunPhase, RunResult

_CONDITIONS: dict[RunTaskStatus, Condition] = {
    RunTaskStatus.SUCCESS: "on_success",
    RunTaskStatus.FAILED: "on_failure",
    RunTaskStatus.SKIPPED: "on_skipped",
}
"""The condition that each outcome meets, apart from `always`."""


def advance(run: RunState, config: RunConfig, at: datetime) -> tuple[RunState, list[RunEvent]]:
    """Return all events that follow from the run's state, and the run after them."""
    events: list[RunEvent] = []
    while following := _step(run, config, at):
        for event in following:
            run = evolve(run, event, at)
        events.extend(following)
    return run, events


def _step(run: RunState, config: RunConfig, at: datetime) -> Sequence[RunEvent]:
    if following := decide_timeout(run, config, at) or decide_retries(run, config, at) or advance_run(run, config):
        return following
    return advance_run_tasks(run, config) if run.phase is RunPhase.RUNNING else []


def advance_run(run: RunState, config: RunConfig) -> list[RunEvent]:
    """Set the result of a run, finish it, and archive it (rules run-4, run-5, result-2 to result-6).

    Failed takes precedence over success, and success over stopped; a run that has timed out has failed. A run finishes
    only when every executor task has really ended, and all its logs and archives are stored.
    """
    unresolved = run.result is RunResult.UNKNOWN
    if run.phase is RunPhase.RUNNING and unresolved:
        result = _result(run, config)
        return [RunResultSet(result)] if result is not None else []
    if any(task.unsettled for task in run.tasks.values()):
        return []
    if run.phase is RunPhase.RUNNING:
        return [RunFinished()] if all(task.finished for task in run.tasks.values()) else []
    return [RunArchived()] if run.finished and not run.archived else []


def _result(run: RunState, config: RunConfig) -> RunResult | None:
    """Return the result, if it is known. A kept failure counts only once all tasks have ended, so it cancels none."""
    failed = [
        task
        for name, task in run.tasks.items()
        if task.status is RunTaskStatus.FAILED and not config.tasks[name].ignore_failure
    ]
    ended = all(task.finished for task in run.tasks.values())
    if run.timedout or (failed and (ended or not all(task.kept for task in failed))):
        return RunResult.FAILED
    if ended:
        return RunResult.SUCCESS
    return RunResult.STOPPED if run.stop else None


def advance_run_tasks(run: RunState, config: RunConfig) -> list[RunEvent]:
    """Skip tasks, cancel them, or let them wait for approval (rules schedule-4 to schedule-6, stop-2, stop-5).

    A stop skips tasks that have not started, except those with an `always` dependency, which are decided as in any run.
    A failure cancels no other task, unless the run is `fail_fast`.
    """
    skipped, cancelled, waiting = [], [], []
    for task in _not_started(run):
        if run.stop and not task.executor_task_id and not _outlives_stop(config, task):
            skipped.append(task.name)
        elif task.skip:
            continue
        elif _is_too_late(run, config, task) and not task.executor_task_id:
            cancelled.append(task.name)
        elif not _parents_done(run, config, task):
            continue
        elif not _conditions_met(run, config, task):
            skipped.append(task.name)
        elif config.tasks[task.name].needs_approval and not task.waiting_approval and not task.approved:
            waiting.append(task.name)
    events: list[RunEvent] = []
    if skipped:
        events.append(RunTasksSkipped(tuple(skipped)))
    if cancelled:
        events.append(RunTasksCancelled(tuple(cancelled)))
    events.extend(RunTaskApprovalRequested(name) for name in waiting)
    return events


def tasks_to_run(run: RunState, config: RunConfig, at: datetime) -> list[str]:
    """Return the names of the tasks that can be assigned at this time, in order (rules schedule-7 and schedule-8)."""
    if run.phase is not RunPhase.RUNNING or run.paused_at is not None:
        return []
    names = [
        task.name
        for task in _not_started(run)
        if not task.skip
        and not task.executor_task_id
        and may_begin(run, task.name, at)
        and _parents_done(run, config, task)
        and _conditions_met(run, config, task)
        and (task.approved or not config.tasks[task.name].needs_approval)
    ]
    return sorted(names, key=lambda name: (config.tasks[name].level, name))


def never_assigned(run: RunState, config: RunConfig) -> list[str]:
    """Return the tasks of an ending run that were never assigned, but could have been.

    A scheduler that lags behind the log may still assign them.
    """
    return [
        task.name
        for task in run.tasks.values()
        if not (task.executor_task_id or task.withdrawn or task.skip or task.kept)
        and _parents_done(run, config, task)
        and _conditions_met(run, config, task)
        and (task.approved or not config.tasks[task.name].needs_approval)
    ]


def _not_started(run: RunState) -> Iterator[RunTask]:
    return (task for task in run.tasks.values() if task.status is RunTaskStatus.NOT_STARTED)


def _outlives_stop(config: RunConfig, task: RunTask) -> bool:
    """Return whether the task runs in a stopped run. After a stop no task waits for an approval."""
    return runs_always(config, task.name) and (task.approved or not config.tasks[task.name].needs_approval)


def runs_always(config: RunConfig, name: str) -> bool:
    """Return whether a stop neither skips nor ends this task."""
    return any("always" in depend.conditions for depend in config.tasks[name].depends)


def _is_too_late(run: RunState, config: RunConfig, task: RunTask) -> bool:
    """Return whether the run's result prevents the task from starting. In a failed run only `fail_fast` does."""
    depends = config.tasks[task.name].depends
    if run.result is RunResult.FAILED:
        return config.fail_fast and all(map(_expects_success, depends))
    return run.result is not RunResult.UNKNOWN and not depends


def _expects_success(depend: Depend) -> bool:
    """Return whether the task does not react to failures: it runs after a success, and possibly after a skip."""
    return "on_success" in depend.conditions and not {"on_failure", "always"}.intersection(depend.conditions)


def _parents_done(run: RunState, config: RunConfig, task: RunTask) -> bool:
    return all(run.tasks[depend.task].done for depend in config.tasks[task.name].depends)


def _conditions_met(run: RunState, config: RunConfig, task: RunTask) -> bool:
    return all(condition_met(run, config, depend) for depend in config.tasks[task.name].depends)


def condition_met(run: RunState, config: RunConfig, depend: Depend) -> bool:
    """Return whether the outcome of the parent, which is done, meets the dependency."""
    return "always" in depend.conditions or _CONDITIONS.get(outcome(run, config, depend.task)) in depend.conditions


def outcome(run: RunState, config: RunConfig, name: str) -> RunTaskStatus:
    """Return the task's status as its children see it.

    An ignored failure counts as a success, and a task that `fail_fast` cancelled as skipped.
    """
    status = run.tasks[name].status
    if status is RunTaskStatus.FAILED and config.tasks[name].ignore_failure:
        return RunTaskStatus.SUCCESS
    if status is RunTaskStatus.CANCELLED and config.fail_fast:
        return RunTaskStatus.SKIPPED
    return status
