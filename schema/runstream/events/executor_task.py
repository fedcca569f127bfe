"""The events of an executor task: one attempt at a run's task (rules task-3, task-4, executor-9 to executor-12).

The scheduler assigns, asks to stop and declares lost; the executor says what really happened, with the times
at which it did (`at`, UTC): several events may share a commit.
"""

from __future__ import annotations

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


class ExecutorTaskAssigned(Event, frozen=True):
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


class ExecutorTaskStopRequested(Event, frozen=True):
    """The executor is asked to end it."""


class ExecutorTaskTimedOut(Event, frozen=True):
    """Its time-out passed; the executor is to end it."""


class ExecutorTaskStarted(Event, frozen=True):
    """The executor took it up; it will never be started again. The setup step is running."""

    at: datetime


class ExecutorTaskSetupFinished(Event, frozen=True):
    """The setup step ended; the task's time-out counts from here."""

    at: datetime
    phase: ExecutorTaskPhase


class ExecutorTaskStepStarted(Event, frozen=True):
    """A step began; steps count from 0."""

    step: int
    at: datetime


class ExecutorTaskStepFinished(Event, frozen=True):
    """A step ended; the exit status is None unless its command ended by itself."""

    step: int
    at: datetime
    phase: ExecutorTaskPhase
    exit_status: int | None


class ExecutorTaskStepTimedOut(Event, frozen=True):
    """The executor ends a step: it took too long, or was silent for too long."""

    step: int
    at: datetime
    limit: Literal["timeout", "no_output"]


class ExecutorTaskInterrupted(Event, frozen=True):
    """Its executor does not see it through: it was stopped, restarted or deleted, or cut off from the log.

    The failure that follows is not the task's own.
    """

    at: datetime


class ExecutorTaskLogStored(Event, frozen=True):
    """A log is an object now; step None is the setup step's."""

    step: int | None


class ExecutorTaskLogLost(Event, frozen=True):
    """A log could not be kept: the executor no longer has it. Step None is the setup step's."""

    step: int | None


class ExecutorTaskArchiveStored(Event, frozen=True):
    """The workspace archive of a save_to_workspace step is an object now."""

    SCHEMA_VERSION: ClassVar[int] = 2

    step: int
    warnings: tuple[str, ...]
    """Patterns that selected nothing, for people: masked, at most 10 of 500 characters."""


class ExecutorTaskFinished(Event, frozen=True):
    """The executor ended it: phase success, failed or stopped."""

    at: datetime
    phase: ExecutorTaskPhase
    error: str
    """Why it failed, when no step says so; else empty."""


class ExecutorTaskCancelled(Event, frozen=True):
    """It was asked to stop before it started, and never will."""

    at: datetime


class ExecutorTaskLost(Event, frozen=True):
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
