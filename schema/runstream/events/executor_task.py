"""The events of an executor task: one attempt at a run's task (rules task-3, task-4, executor-9 to executor-12).

The scheduler assigns, asks to stop and declares lost; the executor says what really happened, with the times
at which it did (`at`, UTC): several events may share a commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal

from runstream.events.event import Event


class ExecutorTaskPhase(StrEnum):
    """The phase of an executor task, and of each of its steps."""

    NOT_STARTED = "notstarted"
    CANCELLED = "cancelled"
    RUNNING = "running"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ExecutorTaskAssigned(Event):
    """The scheduler chose the executor. Run and run config say what is to be done; here is only which."""

    SCHEMA_VERSION: ClassVar[int] = 2

    executor_id: str
    run_id: str
    run_task_id: str
    task: str
    run_config: str
    group: str
    counter: int
    steps: int
    """How many steps it has."""
    timeout: int
    """Nanoseconds from the end of its setup; 0 for none."""
    attempt: int
    """1 for the first execution of the task."""
    workspaces: dict[str, str]
    """By name, the ancestors whose archives are not under the id that this run's id gives: where they are."""


@dataclass(frozen=True, slots=True)
class ExecutorTaskStopRequested(Event):
    """The executor is asked to end it."""


@dataclass(frozen=True, slots=True)
class ExecutorTaskTimedOut(Event):
    """Its time-out passed; the executor is to end it."""


@dataclass(frozen=True, slots=True)
class ExecutorTaskStarted(Event):
    """The executor took it up; it will never be started again. The setup step is running."""

    at: datetime


@dataclass(frozen=True, slots=True)
class ExecutorTaskSetupFinished(Event):
    """The setup step ended; the task's time-out counts from here."""

    at: datetime
    phase: ExecutorTaskPhase


@dataclass(frozen=True, slots=True)
class ExecutorTaskStepStarted(Event):
    """A step began; steps count from 0."""

    step: int
    at: datetime


@dataclass(frozen=True, slots=True)
class ExecutorTaskStepFinished(Event):
    """A step ended; the exit status is None unless its command ended by itself."""

    step: int
    at: datetime
    phase: ExecutorTaskPhase
    exit_status: int | None


@dataclass(frozen=True, slots=True)
class ExecutorTaskStepTimedOut(Event):
    """The executor ends a step: it took too long, or was silent for too long."""

    step: int
    at: datetime
    limit: Literal["timeout", "no_output"]


@dataclass(frozen=True, slots=True)
class ExecutorTaskInterrupted(Event):
    """Its executor does not see it through: it was stopped, restarted or deleted, or cut off from the log.

    The failure that follows is not the task's own.
    """

    at: datetime


@dataclass(frozen=True, slots=True)
class ExecutorTaskLogStored(Event):
    """A log is an object now; step None is the setup step's."""

    step: int | None


@dataclass(frozen=True, slots=True)
class ExecutorTaskLogLost(Event):
    """A log could not be kept: the executor no longer has it. Step None is the setup step's."""

    step: int | None


@dataclass(frozen=True, slots=True)
class ExecutorTaskArchiveStored(Event):
    """The workspace archive of a save_to_workspace step is an object now."""

    SCHEMA_VERSION: ClassVar[int] = 2

    step: int
    warnings: tuple[str, ...]
    """Patterns that selected nothing, for people: masked, at most 10 of 500 characters."""


@dataclass(frozen=True, slots=True)
class ExecutorTaskFinished(Event):
    """The executor ended it: phase success, failed or stopped."""

    at: datetime
    phase: ExecutorTaskPhase
    error: str
    """Why it failed, when no step says so; else empty."""


@dataclass(frozen=True, slots=True)
class ExecutorTaskCancelled(Event):
    """It was asked to stop before it started, and never will."""

    at: datetime


@dataclass(frozen=True, slots=True)
class ExecutorTaskLost(Event):
    """Its executor is gone: the task, if it was open, and its open steps failed; a late report will be refused.

    Of a task that had ended before, nothing more will be stored.
    """

    at: datetime
    error: str


ExecutorTaskEvent = (
    ExecutorTaskAssigned
    | ExecutorTaskStopRequested
    | ExecutorTaskTimedOut
    | ExecutorTaskStarted
    | ExecutorTaskSetupFinished
    | ExecutorTaskStepStarted
    | ExecutorTaskStepFinished
    | ExecutorTaskStepTimedOut
    | ExecutorTaskInterrupted
    | ExecutorTaskLogStored
    | ExecutorTaskLogLost
    | ExecutorTaskArchiveStored
    | ExecutorTaskFinished
    | ExecutorTaskCancelled
    | ExecutorTaskLost
)
EXECUTOR_TASK_EVENTS: tuple[type[Event], ...] = (
    ExecutorTaskAssigned,
    ExecutorTaskStopRequested,
    ExecutorTaskTimedOut,
    ExecutorTaskStarted,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepStarted,
    ExecutorTaskStepFinished,
    ExecutorTaskStepTimedOut,
    ExecutorTaskInterrupted,
    ExecutorTaskLogStored,
    ExecutorTaskLogLost,
    ExecutorTaskArchiveStored,
    ExecutorTaskFinished,
    ExecutorTaskCancelled,
    ExecutorTaskLost,
)
