"""What can happen to a run (rules run-1 to run-9). Tasks are named by their name in the run config."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal

from msgspec import Struct

from runstream.events.event import Event
from runstream.events.run_config import RetryReason


class RunResult(StrEnum):
    """How a run ended; set possibly while some of its tasks still run."""

    UNKNOWN = "unknown"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"


class RunCreated(Event, frozen=True):
    """Somebody asked for a run; the commit's time is its enqueue time."""

    SCHEMA_VERSION: ClassVar[int] = 2

    name: str
    group: str
    run_config: str
    """Content hash of its run config."""
    annotations: dict[str, str]
    setup_errors: tuple[str, ...]
    """When not empty, the run is a setup error and none of its tasks will run."""
    request: str
    """Digest of the request, when it had an idempotency key: the same key must come with the same request."""


Outcome = Literal["skipped", "cancelled", "stopped", "success", "failed"]
"""How a task can have ended."""


class KeptTask(Struct, frozen=True, gc=False):
    """A task that a restart does not run again: it is as it was, with its id, its logs and its archives."""

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


class RunRestarted(Event, frozen=True):
    """The run, created by the same commit, does again what an earlier one did (rule restart-1)."""

    run_id: str
    """The earlier run."""
    scope: Literal["all", "failed", "chosen"]
    """Everything; what did not succeed and what depends on it; or the tasks that were named."""
    tasks: tuple[str, ...]
    """Those that were named."""
    descendants: bool
    """Whether what depends on the named tasks runs again too."""
    fresh: bool
    """Whether variables and secrets were resolved again."""
    kept: tuple[KeptTask, ...]


class RunNumbered(Event, frozen=True):
    """The scheduler recorded the run's place in the order of creation."""

    counter: int
    """The run number: from 1 for each group root (rule run-6)."""
    sequence: int
    """Unique and increasing over all runs of the deployment's partition; lists are ordered by it."""


class RunStarted(Event, frozen=True):
    """Its group was free: queued -> running."""


class RunCancelled(Event, frozen=True):
    """It was withdrawn while it was queued: queued -> cancelled."""

    SCHEMA_VERSION: ClassVar[int] = 2

    reason: str
    """Why, when a rule of its group did it; empty for a user."""


class RunStopRequested(Event, frozen=True):
    """The running run is to stop; nothing waits for approval any more."""

    SCHEMA_VERSION: ClassVar[int] = 2

    reason: str
    """Why, when a rule of its group did it; empty for a user."""


class RunTimedOut(Event, frozen=True):
    """The run took longer than it may: it is stopped, and fails."""


class RunPaused(Event, frozen=True):
    """A user paused it: it starts nothing more, and its clock stops. What runs goes on to its end."""


class RunResumed(Event, frozen=True):
    """A user let it go on."""


class RunTasksSkipped(Event, frozen=True):
    """These tasks will not run: their conditions were not met, or the run is being stopped."""

    tasks: tuple[str, ...]


class RunTasksCancelled(Event, frozen=True):
    """These root tasks will not run: the result was set before they started."""

    tasks: tuple[str, ...]


class RunTaskApprovalRequested(Event, frozen=True):
    """This task could run, but needs somebody's approval."""

    task: str


class RunTaskApproved(Event, frozen=True):
    """The commit's actor approved the waiting task."""

    task: str


class RunTaskAnnotated(Event, frozen=True):
    """Somebody noted these things with the task, in place of all that was noted before."""

    task: str
    annotations: dict[str, str]


class RunTaskRetried(Event, frozen=True):
    """An attempt at this task ended badly, and there will be another one."""

    task: str
    attempt: int
    """The number of the new attempt; the first is 1."""
    reason: RetryReason
    not_before: datetime
    """UTC."""


class RunTaskRetryDropped(Event, frozen=True):
    """The attempt that this task waited for is not made, since the run has its result: the last one counts."""

    task: str


class RunResultSet(Event, frozen=True):
    """The result is known; tasks may still be running."""

    result: RunResult


class RunFinished(Event, frozen=True):
    """Every task has really ended: running -> finished."""


class RunArchived(Event, frozen=True):
    """All logs and archives are stored; nothing more will happen to the run."""


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
    | RunTaskRetried
    | RunTaskRetryDropped
    | RunResultSet
    | RunFinished
    | RunArchived
)
RUN_EVENTS: tuple[type[Event], ...] = (
    RunCreated,
    RunNumbered,
    RunRestarted,
    RunStarted,
    RunCancelled,
    RunStopRequested,
    RunTimedOut,
    RunPaused,
    RunResumed,
    RunTasksSkipped,
    RunTasksCancelled,
    RunTaskApprovalRequested,
    RunTaskApproved,
    RunTaskAnnotated,
    RunTaskRetried,
    RunTaskRetryDropped,
    RunResultSet,
    RunFinished,
    RunArchived,
)
