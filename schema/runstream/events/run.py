"""The events of a run (rules run-1 to run-9). Tasks are identified by their name in the run config."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal, get_args

from msgspec import Struct

from runstream.events.event import DomainEvent
from runstream.events.run_config import RetryReason
from runstream.run_states import RunResult


class RunCreated(DomainEvent, frozen=True):
    """A run was created; the commit's time is its enqueue time."""

    SCHEMA_VERSION: ClassVar[int] = 2

    name: str
    group: str
    run_config: str
    """Content hash of its run config."""
    annotations: dict[str, str]
    setup_errors: tuple[str, ...]
    """If not empty, the run is a setup error, and none of its tasks run."""
    request: str
    """Digest of the request, if it had an idempotency key: the same key requires the same request."""


Outcome = Literal["skipped", "cancelled", "stopped", "success", "failed"]
"""How a task can have ended."""


class KeptTask(Struct, frozen=True, gc=False):
    """A task that a restart keeps: it does not run again, and has the same id, outcome, logs and archives."""

    task: str
    id: str
    """Of the run task, as in the earlier run."""
    status: Outcome
    executor_task_id: str
    """Of its last attempt; empty for a task that never ran."""
    attempt: int
    timedout: bool
    annotations: dict[str, str]
    approvers: tuple[str, ...]
    approved_at: datetime | None
    start_time: datetime | None
    end_time: datetime | None


class RunRestarted(DomainEvent, frozen=True):
    """The run, created by the same commit, restarts an earlier one (rule restart-1)."""

    run_id: str
    """The earlier run."""
    scope: Literal["all", "failed", "chosen"]
    """All tasks; those that did not succeed, with their dependents; or named tasks."""
    tasks: tuple[str, ...]
    """Those that were named."""
    descendants: bool
    """Whether the tasks that depend on the named ones run again, too."""
    fresh: bool
    """Whether variables and secrets were resolved again."""
    kept: tuple[KeptTask, ...]


class RunNumbered(DomainEvent, frozen=True):
    """The scheduler assigned the run its number and its place in the order of creation."""

    counter: int
    """The run's number, counted from 1 for each group root (rule run-6)."""
    sequence: int
    """Unique and increasing over all runs of the deployment's partition; lists are ordered by it."""


class RunStarted(DomainEvent, frozen=True):
    """The run was started: queued -> running."""


class RunCancelled(DomainEvent, frozen=True):
    """The queued run was cancelled: queued -> cancelled."""

    SCHEMA_VERSION: ClassVar[int] = 2

    reason: str
    """The reason, if a concurrency policy caused it; empty for a user."""


class RunStopRequested(DomainEvent, frozen=True):
    """The running run was asked to stop; none of its tasks waits for an approval any more."""

    SCHEMA_VERSION: ClassVar[int] = 2

    reason: str
    """The reason, if a concurrency policy caused it; empty for a user."""


class RunTimedOut(DomainEvent, frozen=True):
    """The run exceeded its timeout: it is stopped, and fails."""


class RunPaused(DomainEvent, frozen=True):
    """A user paused the run: it starts no more tasks, its clocks stop, and running tasks continue."""


class RunResumed(DomainEvent, frozen=True):
    """A user let it go on."""


class RunTasksSkipped(DomainEvent, frozen=True):
    """Tasks were skipped: their conditions were not met, or the run is stopping."""

    tasks: tuple[str, ...]


class RunTasksCancelled(DomainEvent, frozen=True):
    """Tasks were cancelled: the result of the run was set before they started."""

    tasks: tuple[str, ...]


class RunTaskApprovalRequested(DomainEvent, frozen=True):
    """A task could run, but needs an approval, which it may have already."""

    task: str


class RunTaskApproved(DomainEvent, frozen=True):
    """The commit's actor approved a task, which waits for that, or begins without waiting."""

    task: str


class RunTaskAnnotated(DomainEvent, frozen=True):
    """A user replaced the annotations of a task."""

    task: str
    annotations: dict[str, str]


class RunTaskLogDeleted(DomainEvent, frozen=True):
    """The commit's actor deleted a stored log of a task; the run and its task do not change."""

    task: str
    attempt: int
    """The number of the attempt, from 1."""
    step: int | None
    """The number of the step, from 0; None for the setup, -N for service N."""


class RunTaskRetried(DomainEvent, frozen=True):
    """An attempt at a task failed, and another one follows."""

    task: str
    attempt: int
    """The number of the new attempt; the first is 1."""
    reason: RetryReason
    not_before: datetime
    """UTC."""


class RunTaskRetryDropped(DomainEvent, frozen=True):
    """A task's next attempt was dropped, because the run has its result: the last attempt counts."""

    task: str


class RunResultSet(DomainEvent, frozen=True):
    """The result of the run was set; tasks may still be running."""

    result: RunResult


class RunFinished(DomainEvent, frozen=True):
    """The run finished, after all its tasks have really ended: running -> finished."""


class RunArchived(DomainEvent, frozen=True):
    """The run was archived: all its logs and archives are stored, and its tasks do not change any more."""


DataKind = Literal["logs", "archives"]
"""A kind of stored data to which a run refers."""


class RunDataRemoved(DomainEvent, frozen=True):
    """The archived run no longer refers to its logs, or archives: they go when no other run refers to them."""

    kinds: tuple[DataKind, ...]
    reason: str
    """The rule of retention that the run met."""


class RunDeleted(DomainEvent, frozen=True):
    """The archived run was deleted: it leaves the rows, and refers to no logs and archives any more."""

    reason: str
    """The rule of retention that the run met; empty for a user."""


RunEvent = (
    RunCreated
    | RunNumbered
    | RunRestarted
    | RunStarted
    | RunCancelled
    | RunStopRequested
    | RunTimedOut
    | RunPaused
    | RunResumed
    | RunTasksSkipped
    | RunTasksCancelled
    | RunTaskApprovalRequested
    | RunTaskApproved
    | RunTaskAnnotated
    | RunTaskLogDeleted
    | RunTaskRetried
    | RunTaskRetryDropped
    | RunResultSet
    | RunFinished
    | RunArchived
    | RunDataRemoved
    | RunDeleted
)
RUN_EVENTS: tuple[type[DomainEvent], ...] = get_args(RunEvent)
