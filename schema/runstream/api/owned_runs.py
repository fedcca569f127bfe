"""Runs as the API of projects and users shows them."""

from __future__ import annotations

from datetime import datetime

from runstream.api.answer import Answer
from runstream.api.runs import Depend


class OwnedRunSummary(Answer, frozen=True):
    """A run of a project or user, in a list."""

    number: int
    """0 until the scheduler has seen the run."""
    name: str
    annotations: dict[str, str]
    phase: str
    result: str
    tasks_waiting_approval: tuple[str, ...]
    """Ids of tasks."""
    enqueue_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None


class OwnedTaskSummary(Answer, frozen=True):
    """A task of a run, without its steps."""

    id: str
    name: str
    status: str
    timedout: bool
    level: int
    depends: dict[str, Depend]
    waiting_approval: bool
    approved: bool
    approval_annotations: dict[str, str] | None
    start_time: datetime | None
    end_time: datetime | None
    task_timeout_interval: int
    """Nanoseconds; 0 for none."""


class OwnedRun(Answer, frozen=True):
    """A run of a project or user."""

    number: int
    name: str
    annotations: dict[str, str]
    phase: str
    result: str
    setup_errors: tuple[str, ...] | None
    stopping: bool
    tasks: dict[str, OwnedTaskSummary]
    tasks_waiting_approval: tuple[str, ...]
    enqueue_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    can_restart_from_scratch: bool
    can_restart_from_failed_tasks: bool


class OwnedContainer(Answer, frozen=True):
    """A container of a task."""

    image: str


class OwnedSetupStep(Answer, frozen=True):
    """The setup of a task."""

    phase: str
    name: str
    start_time: datetime | None
    end_time: datetime | None


class OwnedStep(Answer, frozen=True):
    """A step of a task."""

    phase: str
    type: str
    name: str
    command: str
    shell: str
    exit_status: int | None
    """Of run steps."""
    start_time: datetime | None
    end_time: datetime | None
    log_archived: bool


class OwnedTask(Answer, frozen=True):
    """A task of a run, with its steps."""

    id: str
    name: str
    status: str
    timedout: bool
    containers: tuple[OwnedContainer, ...]
    waiting_approval: bool
    approved: bool
    approval_annotations: dict[str, str] | None
    setup_step: OwnedSetupStep
    steps: tuple[OwnedStep, ...]
    start_time: datetime | None
    end_time: datetime | None
    task_timeout_interval: int
