"""The events of an executor task: one attempt at a run's task (rules task-3, task-4, executor-9 to executor-12).

The scheduler assigns tasks, asks them to stop and declares them lost; the executor reports what really happened, with
the times (`at`, UTC), because several events may share a commit.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal, get_args

from runstream.events.event import DomainEvent


class ExecutorTaskPhase(StrEnum):
    """The phase of an executor task, and of each of its steps."""

    NOT_STARTED = "notstarted"
    CANCELLED = "cancelled"
    RUNNING = "running"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"


class ExecutorTaskAssigned(DomainEvent, frozen=True):
    """The scheduler assigned the task to an executor. The run config describes the work; the event only refers to
    it."""

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
    """The timeout, in nanoseconds from the end of the setup; 0 for none."""
    attempt: int
    """1 for the first execution of the task."""
    workspaces: dict[str, str]
    """Ids of ancestors' archives that differ from the id derived from the run, by the ancestor's name."""


class ExecutorTaskStopRequested(DomainEvent, frozen=True):
    """The executor was asked to stop the task."""


class ExecutorTaskTimedOut(DomainEvent, frozen=True):
    """The task exceeded its timeout; the executor is to end it."""


class ExecutorTaskStarted(DomainEvent, frozen=True):
    """The executor started the task, which is never started again. The setup is running."""

    at: datetime


class ExecutorTaskSetupFinished(DomainEvent, frozen=True):
    """The setup ended; the task's timeout counts from here."""

    at: datetime
    phase: ExecutorTaskPhase


class ExecutorTaskStepStarted(DomainEvent, frozen=True):
    """A step started; steps are numbered from 0."""

    step: int
    at: datetime


class ExecutorTaskStepFinished(DomainEvent, frozen=True):
    """A step ended; the exit status is None unless its command ended by itself."""

    step: int
    at: datetime
    phase: ExecutorTaskPhase
    exit_status: int | None


class ExecutorTaskStepTimedOut(DomainEvent, frozen=True):
    """A step exceeded its timeout, or its time without output; the executor ends it."""

    step: int
    at: datetime
    limit: Literal["timeout", "no_output"]


class ExecutorTaskInterrupted(DomainEvent, frozen=True):
    """The executor was stopped, restarted, deleted or cut off from the log before the task ended.

    The failure that follows is not the task's fault.
    """

    at: datetime


class ExecutorTaskLogStored(DomainEvent, frozen=True):
    """A log was stored as an object; step None is the setup."""

    step: int | None


class ExecutorTaskLogLost(DomainEvent, frozen=True):
    """A log is lost, because the executor no longer has it; step None is the setup."""

    step: int | None


class ExecutorTaskArchiveStored(DomainEvent, frozen=True):
    """The workspace archive of a save_to_workspace step was stored as an object."""

    SCHEMA_VERSION: ClassVar[int] = 2

    step: int
    warnings: tuple[str, ...]
    """Warnings for people about patterns that selected nothing: masked, at most 10 of 500 characters."""


class ExecutorTaskFinished(DomainEvent, frozen=True):
    """The task ended at its executor, in phase success, failed or stopped."""

    at: datetime
    phase: ExecutorTaskPhase
    error: str
    """Why it failed, if no step says so; otherwise empty."""


class ExecutorTaskCancelled(DomainEvent, frozen=True):
    """The task was asked to stop before it started, and will never start."""

    at: datetime


class ExecutorTaskLost(DomainEvent, frozen=True):
    """The executor is lost: if the task was open, it failed with its open steps, and late reports are refused.

    If the task had ended before, its remaining logs and archives will not be stored.
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
EXECUTOR_TASK_EVENTS: tuple[type[DomainEvent], ...] = get_args(ExecutorTaskEvent)
