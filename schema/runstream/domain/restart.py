"""The tasks that a restart runs again, and those that it keeps (rules restart-2 to restart-7).

A task runs again if the request names it, if the scope of the restart includes it, or if a task that it depends on runs
again. All others are kept, with their ids, outcomes, logs and archives. Only a restart of named tasks can keep the
tasks that depend on them, with their earlier outcome.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import cast

from runstream.domain.actions import NotAllowed
from runstream.domain.advance import condition_met, outcome
from runstream.domain.run import RestartOrigin, RunState, RunTask, RunTaskStatus
from runstream.events.run import KeptTask, Outcome, RunRestarted
from runstream.events.run_config import RunConfig
from runstream.run_states import RunPhase, RunResult


def decide_restart(run: RunState, config: RunConfig, request: RestartOrigin) -> RunRestarted:
    """Return the event by which a new run keeps tasks of an earlier one. Raises NotAllowed.

    `config` has the tasks of the earlier run, including the named tasks of `request`.
    """
    _require_ended(run, request)
    again = _again(run, config, request)
    kept = [task for name, task in run.tasks.items() if name not in again]
    for task in kept:
        _require_keepable(task)
        _require_archives(run, task)
    if request.scope == "chosen":
        for name in request.tasks:
            _require_runnable(run, config, name, again)
    return RunRestarted(
        run.id, request.scope, request.tasks, request.descendants, request.fresh, tuple(map(_kept, kept))
    )


def can_restart(run: RunState, config: RunConfig, request: RestartOrigin) -> bool:
    """Return whether such a restart is allowed."""
    try:
        decide_restart(run, config, request)
    except NotAllowed:
        return False
    return True


def _require_ended(run: RunState, request: RestartOrigin) -> None:
    if run.deleted_at is not None:
        raise _refused("the run was deleted", "create a new run")
    if run.phase is RunPhase.SETUP_ERROR:
        raise _refused("the run has setup errors", "correct its configuration and create a new run")
    if not run.finished:
        instead = "cancelled" if run.phase is RunPhase.QUEUED else "stopped"
        raise _refused(
            f"the run is {run.phase.value} and cannot be restarted",
            f"a {run.phase.value} run can be {instead}; it can be restarted once it has ended",
        )
    if request.scope == "failed" and run.result is RunResult.SUCCESS:
        raise _refused(
            "the run succeeded: it has no failed tasks to begin with",
            "it can be restarted from the beginning, or some of its tasks by their names",
        )


def _again(run: RunState, config: RunConfig, request: RestartOrigin) -> Collection[str]:
    if request.scope == "all":
        return run.tasks.keys()
    if request.scope == "chosen":
        return _with_descendants(config, request.tasks) if request.descendants else request.tasks
    return _with_descendants(config, (n for n in run.tasks if outcome(run, config, n) is not RunTaskStatus.SUCCESS))


def _with_descendants(config: RunConfig, names: Iterable[str]) -> set[str]:
    children: dict[str, list[str]] = {name: [] for name in config.tasks}
    for task in config.tasks.values():
        for depend in task.depends:
            children[depend.task].append(task.name)
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(children[name])
    return found


def _require_keepable(task: RunTask) -> None:
    if not task.finished:
        raise _refused(
            f"task {task.name!r} has no outcome that could be kept: the run ended before it ran",
            "name that task too, or restart from the failed tasks or from the beginning",
        )
    if task.unsettled or task.archives_pending:
        raise _refused(
            f"the logs or archives of task {task.name!r} are not stored yet",
            "try again in a moment, or restart from the beginning",
        )


def _require_archives(run: RunState, task: RunTask) -> None:
    if run.archives_removed_at is not None and task.archive_steps and task.executor_task_id:
        raise _refused(
            f"retention removed the archives of task {task.name!r} at {run.archives_removed_at:%Y-%m-%d %H:%M:%S} UTC",
            "name that task too, or restart from the beginning",
        )


def _require_runnable(run: RunState, config: RunConfig, name: str, again: Collection[str]) -> None:
    """Raise NotAllowed for a named task that the outcome of a kept one would skip."""
    if config.tasks[name].skip:
        raise _refused(
            f"task {name!r} would be skipped: its `when` does not match", "it is skipped in every run like this"
        )
    for depend in config.tasks[name].depends:
        parent = run.tasks[depend.task]
        if parent.name not in again and not condition_met(run, config, depend):
            raise _refused(
                f"task {name!r} would be skipped: it depends on {parent.name!r} ({', '.join(depend.conditions)}), "
                f"which keeps its outcome: {parent.status.value}",
                f"name task {parent.name!r} too",
            )


def _kept(task: RunTask) -> KeptTask:
    return KeptTask(
        task=task.name,
        id=task.id,
        status=cast("Outcome", task.status.value),
        executor_task_id=task.executor_task_id,
        attempt=task.attempt,
        timedout=task.timedout,
        annotations=task.annotations,
        approvers=task.approvers,
        approved_at=task.approved_at,
        start_time=task.start_time,
        end_time=task.end_time,
    )


def _refused(message: str, allowed: str) -> NotAllowed:
    return NotAllowed(message, "runCannotBeRestarted", allowed)
