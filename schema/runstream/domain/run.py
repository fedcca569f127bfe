"""A run and its tasks: their state, folded from events (rules run-1 to run-8, task-1 to task-7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, assert_never

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from runstream.events.run import (
    RunArchived,
    RunCancelled,
    RunCreated,
    RunDataRemoved,
    RunDeleted,
    RunEvent,
    RunFinished,
    RunNumbered,
    RunPaused,
    RunRestarted,
    RunResultSet,
    RunResumed,
    RunStarted,
    RunStopRequested,
    RunTaskAnnotated,
    RunTaskApprovalRequested,
    RunTaskApproved,
    RunTaskLogDeleted,
    RunTaskRetried,
    RunTaskRetryDropped,
    RunTasksCancelled,
    RunTasksSkipped,
    RunTimedOut,
)
from runstream.events.run_config import RetryReason, RunConfig
from runstream.run_states import RunPhase, RunResult


class RunTaskStatus(StrEnum):
    """The status of a task of a run."""

    NOT_STARTED = "notstarted"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    RUNNING = "running"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"


FINAL_PHASES = frozenset({RunPhase.SETUP_ERROR, RunPhase.CANCELLED, RunPhase.FINISHED})
FINAL_STATUSES = frozenset(set(RunTaskStatus) - {RunTaskStatus.NOT_STARTED, RunTaskStatus.RUNNING})

_MICROSECOND = timedelta(microseconds=1)


class FailedAttempt(Struct, frozen=True, gc=False):
    """A failed attempt at a task that was followed by another one."""

    executor_task_id: str
    reason: RetryReason
    open: bool
    """Whether its executor task still has logs or archives to store."""
    start_time: datetime | None
    end_time: datetime | None


class RunTask(Struct, frozen=True, gc=False):
    """One task of a run."""

    id: str
    name: str
    status: RunTaskStatus
    skip: bool
    archive_steps: tuple[int, ...] = ()
    """Indexes of its save_to_workspace steps."""
    waiting_approval: bool = False
    approved: bool = False
    approvers: tuple[str, ...] = ()
    approved_at: datetime | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    """What users noted with it."""
    kept: bool = False
    """Whether a restart keeps it: it has the outcome of the earlier run, and this run does not run it."""
    timedout: bool = False
    failure: RetryReason | Literal[""] = ""
    """The reason why its current attempt failed; empty if it has not failed."""
    attempt: int = 1
    """The number of its current attempt."""
    attempts: tuple[FailedAttempt, ...] = ()
    """Those before it."""
    not_before: datetime | None = None
    """The earliest start of its current attempt, if it has to wait."""
    executor_task_id: str = ""
    """The executor task of its current attempt; empty until it is assigned."""
    executor_task_open: bool = False
    """Whether its executor task has not ended, or still has logs or archives to store."""
    withdrawn: str = ""
    """The withdrawn executor task of an attempt that must not run, so that no scheduler can assign it any more."""
    archives_pending: bool = False
    """Whether the archive of a successful save step is not stored yet."""
    start_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def finished(self) -> bool:
        """True if its status is final."""
        return self.status in FINAL_STATUSES

    @property
    def done(self) -> bool:
        """True if its children can be decided: its status is final, and its archives are stored (rule task-7)."""
        return self.finished and not self.archives_pending

    @property
    def executions(self) -> tuple[str, ...]:
        """The ids of its executor tasks in this run, one for each assigned attempt."""
        if self.kept:
            return ()
        earlier = (attempt.executor_task_id for attempt in self.attempts)
        return tuple(key for key in (*earlier, self.executor_task_id, self.withdrawn) if key)

    @property
    def between_attempts(self) -> bool:
        """True if an attempt has failed and the next one is not assigned yet."""
        return self.status is RunTaskStatus.NOT_STARTED and bool(self.attempts) and not self.executor_task_id

    @property
    def unsettled(self) -> bool:
        """True if an executor task of any attempt has not ended, or still has logs or archives to store."""
        return self.executor_task_open or any(attempt.open for attempt in self.attempts)


class RestartOrigin(Struct, frozen=True, gc=False):
    """The earlier run of a restart, and the request."""

    run_id: str
    scope: Literal["all", "failed", "chosen"]
    tasks: tuple[str, ...]
    descendants: bool
    fresh: bool


class RunState(Struct, frozen=True, gc=False):
    """One run."""

    id: str
    name: str
    group: str
    run_config: str
    annotations: dict[str, str]
    setup_errors: tuple[str, ...]
    phase: RunPhase
    tasks: dict[str, RunTask]
    """The tasks by their names; none for a setup error."""
    enqueue_time: datetime
    result: RunResult = RunResult.UNKNOWN
    stop: bool = False
    timedout: bool = False
    """Whether it has exceeded its timeout."""
    reason: str = ""
    """Why it was stopped or cancelled, if not by a user."""
    priority: int = 0
    request: str = ""
    """Digest of the request that created it, if that had an idempotency key."""
    restart: RestartOrigin | None = None
    paused_at: datetime | None = None
    """Since when it is paused."""
    paused_for: int = 0
    """Total duration of its finished pauses since its start, in nanoseconds."""
    counter: int = 0
    """Its number among the runs of its group root, in the order of creation (rule run-6)."""
    sequence: int = 0
    """Its place in the order of all runs, which lists use."""
    numbered: bool = False
    """Whether counter and sequence are recorded in the log."""
    start_time: datetime | None = None
    end_time: datetime | None = None
    archived: bool = False
    logs_removed_at: datetime | None = None
    """When retention removed its logs."""
    archives_removed_at: datetime | None = None
    """When retention removed its archives."""
    deleted_at: datetime | None = None
    deleted_for: str = ""
    """The rule of retention that deleted it; empty for a user."""

    @property
    def kept_executions(self) -> tuple[str, ...]:
        """The ids of the executor tasks of earlier runs whose outcome it keeps."""
        return tuple(task.executor_task_id for task in self.tasks.values() if task.kept and task.executor_task_id)

    @property
    def holds_logs(self) -> bool:
        """True while the archived run refers to logs."""
        ran = any(task.executor_task_id or task.attempts for task in self.tasks.values())
        return self.archived and self.logs_removed_at is None and ran

    @property
    def holds_archives(self) -> bool:
        """True while the archived run refers to archives, or may: a save step that failed has stored none."""
        saved = any(task.archive_steps and (task.executor_task_id or task.attempts) for task in self.tasks.values())
        return self.archived and self.archives_removed_at is None and saved

    @property
    def finished(self) -> bool:
        """True if its phase is final."""
        return self.phase in FINAL_PHASES


def created(
    run_id: str, event: RunCreated, config: RunConfig, at: datetime, task_id: Callable[[str, str], str]
) -> RunState:
    """Return the run that a creation starts; `task_id(run id, task name)` returns the ids of its tasks."""
    failed = bool(event.setup_errors)
    tasks = {} if failed else {name: _new_task(task_id(run_id, name), config, name) for name in config.tasks}
    return RunState(
        id=run_id,
        name=event.name,
        group=event.group,
        run_config=event.run_config,
        annotations=event.annotations,
        setup_errors=event.setup_errors,
        phase=RunPhase.SETUP_ERROR if failed else RunPhase.QUEUED,
        tasks=tasks,
        enqueue_time=at,
        priority=config.priority,
        request=event.request,
    )


def _new_task(task_id: str, config: RunConfig, name: str) -> RunTask:
    task = config.tasks[name]
    status = RunTaskStatus.SKIPPED if task.skip else RunTaskStatus.NOT_STARTED
    saves = tuple(index for index, step in enumerate(task.steps) if step.type == "save_to_workspace")
    return RunTask(id=task_id, name=name, status=status, skip=task.skip, archive_steps=saves)


def evolve(run: RunState, event: RunEvent, at: datetime, actor: str = "") -> RunState:
    """Return the run after an event of a commit made at `at` by `actor`; a creation is handled by `created`."""
    match event:  # the events of every run come first, since cases are tried in order
        case RunCreated():
            return run
        case RunNumbered(counter, sequence):
            return replace(run, counter=counter, sequence=sequence, numbered=True)
        case RunStarted():
            return replace(run, phase=RunPhase.RUNNING, start_time=at, paused_for=0)
        case RunResultSet(result):
            return replace(run, result=result)
        case RunFinished():
            return replace(_resumed(run, at), phase=RunPhase.FINISHED, end_time=at)
        case RunArchived():
            return replace(run, archived=True)
        case RunDataRemoved(kinds):
            return replace(run, **{f"{kind}_removed_at": at for kind in kinds})
        case RunDeleted(reason):
            return replace(run, deleted_at=at, deleted_for=reason)
        case RunRestarted():
            return _restarted(run, event)
        case RunCancelled(reason):
            return replace(_resumed(run, at), phase=RunPhase.CANCELLED, end_time=at, reason=reason)
        case RunStopRequested(reason):
            return replace(_stopped(run, at), reason=reason)
        case RunTimedOut():
            return replace(_stopped(run, at), timedout=True)
        case RunPaused():
            return replace(run, paused_at=at)
        case RunResumed():
            return _resumed(run, at)
        case RunTasksSkipped(tasks):
            return with_tasks(run, tasks, status=RunTaskStatus.SKIPPED)
        case RunTasksCancelled(tasks):
            return with_tasks(run, tasks, status=RunTaskStatus.CANCELLED)
        case RunTaskApprovalRequested(task):
            return _approval_requested(run, task, at)
        case RunTaskApproved(task):
            return _approved(run, task, at, actor)
        case RunTaskAnnotated(task, annotations):
            return with_tasks(run, (task,), annotations=annotations)
        case RunTaskLogDeleted():
            return run  # what is stored is no part of the state
        case RunTaskRetried():
            return _retried(run, event)
        case RunTaskRetryDropped(task):
            return with_tasks(run, (task,), **_before_retry(run.tasks[task]))
    assert_never(event)


def with_tasks(run: RunState, names: Iterable[str], **changes: object) -> RunState:
    """Return the run with these fields of these tasks changed."""
    tasks = run.tasks.copy()
    for name in names:
        tasks[name] = replace(tasks[name], **changes)
    return replace(run, tasks=tasks)


def _restarted(run: RunState, event: RunRestarted) -> RunState:
    for kept in event.kept:
        changes = asdict(kept) | {"status": RunTaskStatus(kept.status), "kept": True, "approved": bool(kept.approvers)}
        run = with_tasks(run, (changes.pop("task"),), **changes)
    return replace(run, restart=RestartOrigin(event.run_id, event.scope, event.tasks, event.descendants, event.fresh))


def _stopped(run: RunState, at: datetime) -> RunState:
    """Return the run after a stop, which ends its pause and all waits for an approval."""
    run = _resumed(run, at)
    waiting = [name for name, task in run.tasks.items() if task.waiting_approval]
    return replace(with_tasks(run, waiting, waiting_approval=False), stop=True)


def _approval_requested(run: RunState, task: str, at: datetime) -> RunState:
    if run.tasks[task].approvers:
        return with_tasks(run, (task,), approved=True, approved_at=at)
    return with_tasks(run, (task,), waiting_approval=True)


def _approved(run: RunState, task: str, at: datetime, actor: str) -> RunState:
    """Return the run after an approval; one of a task that does not wait counts once it would."""
    run = with_tasks(run, (task,), approvers=(*run.tasks[task].approvers, actor))
    if not run.tasks[task].waiting_approval:
        return run
    return with_tasks(run, (task,), waiting_approval=False, approved=True, approved_at=at)


def _resumed(run: RunState, at: datetime) -> RunState:
    paused_at = run.paused_at
    if paused_at is None:
        return run
    for task in run.tasks.values():
        if task.not_before is not None and task.between_attempts:
            run = with_tasks(run, (task.name,), not_before=_put_off(task, task.not_before, paused_at, at))
    return replace(run, paused_at=None, paused_for=run.paused_for + (at - paused_at) // _MICROSECOND * 1000)


def _put_off(task: RunTask, not_before: datetime, paused_at: datetime, at: datetime) -> datetime:
    """Return the earliest start of the next attempt, postponed by a pause."""
    since = max(paused_at, task.attempts[-1].end_time or paused_at)
    return not_before + (at - since) if not_before > since else not_before


def _retried(run: RunState, event: RunTaskRetried) -> RunState:
    task = run.tasks[event.task]
    ended = FailedAttempt(task.executor_task_id, event.reason, task.executor_task_open, task.start_time, task.end_time)
    return with_tasks(
        run,
        (event.task,),
        status=RunTaskStatus.NOT_STARTED,
        attempt=event.attempt,
        attempts=(*task.attempts, ended),
        not_before=event.not_before,
        executor_task_id="",
        executor_task_open=False,
        archives_pending=False,
        timedout=False,
        failure="",
        start_time=None,
        end_time=None,
    )


def _before_retry(task: RunTask) -> dict[str, object]:
    """Return the task as it was when its last attempt had failed."""
    *earlier, last = task.attempts
    return {
        "status": RunTaskStatus.FAILED,
        "attempt": task.attempt - 1,
        "attempts": tuple(earlier),
        "not_before": None,
        "executor_task_id": last.executor_task_id,
        "executor_task_open": last.open,
        "archives_pending": last.open and bool(task.archive_steps),
        "timedout": last.reason == "timeout",
        "failure": last.reason,
        "start_time": last.start_time,
        "end_time": last.end_time,
    }
