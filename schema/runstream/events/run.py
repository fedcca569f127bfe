"""What can happen to a run (domain c.1 to c.5, c.12, c.14). Tasks are named by their name in the run config."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runstream.events.event import Event


class RunResult(StrEnum):
    """How a run ended; set possibly while some of its tasks still run."""

    UNKNOWN = "unknown"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RunCreated(Event):
    """Somebody asked for a run; the commit's time is its enqueue time."""

    name: str
    group: str
    run_config: str
    """Content hash of its run config."""
    annotations: dict[str, str]
    setup_errors: tuple[str, ...]
    """When not empty, the run is a setup error and none of its tasks will run."""


@dataclass(frozen=True, slots=True)
class RunNumbered(Event):
    """The scheduler recorded the run's place in the order of creation."""

    counter: int
    """The run number: from 1 for each group root (c.12)."""
    sequence: int
    """Unique and increasing over all runs of the deployment's partition; lists are ordered by it."""


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """Its group was free: queued -> running."""


@dataclass(frozen=True, slots=True)
class RunCancelled(Event):
    """A user withdrew it while it was queued: queued -> cancelled."""


@dataclass(frozen=True, slots=True)
class RunStopRequested(Event):
    """A user asked that the running run stops; nothing waits for approval any more."""


@dataclass(frozen=True, slots=True)
class RunTasksSkipped(Event):
    """These tasks will not run: their conditions were not met, or the run is being stopped."""

    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunTasksCancelled(Event):
    """These root tasks will not run: the result was set before they started."""

    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunTaskApprovalRequested(Event):
    """This task could run, but needs somebody's approval."""

    task: str


@dataclass(frozen=True, slots=True)
class RunTaskApproved(Event):
    """The commit's actor approved the waiting task."""

    task: str


@dataclass(frozen=True, slots=True)
class RunResultSet(Event):
    """The result is known; tasks may still be running."""

    result: RunResult


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """Every task has really ended: running -> finished."""


@dataclass(frozen=True, slots=True)
class RunArchived(Event):
    """All logs and archives are stored; nothing more will happen to the run."""


RunEvent = (
    RunCreated
    | RunNumbered
    | RunStarted
    | RunCancelled
    | RunStopRequested
    | RunTasksSkipped
    | RunTasksCancelled
    | RunTaskApprovalRequested
    | RunTaskApproved
    | RunResultSet
    | RunFinished
    | RunArchived
)
RUN_EVENTS: tuple[type[Event], ...] = (
    RunCreated,
    RunNumbered,
    RunStarted,
    RunCancelled,
    RunStopRequested,
    RunTasksSkipped,
    RunTasksCancelled,
    RunTaskApprovalRequested,
    RunTaskApproved,
    RunResultSet,
    RunFinished,
    RunArchived,
)
