"""Why a task is to end before its steps are done. What is told first stays the reason."""

from __future__ import annotations

import asyncio
import threading
from enum import StrEnum

from runstream.errors import InternalError
from runstream.events.executor_task import ExecutorTaskPhase

_SHUTDOWN_GRACE_SECONDS = 3.0


class StoppedError(InternalError):
    """The task is being ended."""

    def __init__(self) -> None:
        super().__init__("the task is being ended", code="taskStopped")


class Reason(StrEnum):
    """Why a task is to end; the value is for people."""

    STOP = "it was asked to stop"
    TIMEOUT = "its time-out passed"
    STEP_TIMEOUT = "a step took longer than it may"
    NO_OUTPUT = "a step was silent for longer than it may"
    DISK = "its files take more of the disk than they may"
    DISK_FULL = "the executor's disk is full"
    LOST = "it was declared lost"
    SHUTDOWN = "the executor was stopped"
    DELETED = "the executor was deleted"
    MAINTENANCE = "the deadline of a maintenance passed"
    LEASE = "the executor could not renew its lease in time"


STEP_LIMITS = frozenset({Reason.STEP_TIMEOUT, Reason.NO_OUTPUT})
"""Of a step: its log says so already."""
_OF_THE_TASK = frozenset({Reason.STOP, Reason.TIMEOUT, Reason.DISK, Reason.DISK_FULL, *STEP_LIMITS})


class Ending:
    """Tells a running task, its waits and its threads that it is to end."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.stopped = threading.Event()
        """The same, for threads."""
        self.reason: Reason | None = None
        self.stop = False
        """Whether a stop was requested, whatever else happened."""

    def tell(self, reason: Reason) -> None:
        """End the task."""
        self.stop = self.stop or reason is Reason.STOP
        if self.reason is None:
            self.reason = reason
        self.told.set()
        self.stopped.set()

    def grace(self, seconds: float) -> float:
        """How long the task may take to end, when `seconds` is what it is usually given."""
        if self.reason is Reason.LEASE:
            return 0.0  # somebody else may be told at any moment that it has ended
        return min(seconds, _SHUTDOWN_GRACE_SECONDS) if self.reason is Reason.SHUTDOWN else seconds

    @property
    def step_phase(self) -> ExecutorTaskPhase:
        """The phase of a step that did not succeed (rule step-3)."""
        return ExecutorTaskPhase.STOPPED if self.stop and self.reason not in STEP_LIMITS else ExecutorTaskPhase.FAILED

    @property
    def task_phase(self) -> ExecutorTaskPhase:
        """The phase of a task that did not succeed: timed out is failed, else a stop is stopped (rule step-4)."""
        return ExecutorTaskPhase.FAILED if self.reason is Reason.TIMEOUT else self.step_phase

    @property
    def interrupted(self) -> bool:
        """Whether it is the executor that does not see the task through."""
        return self.reason is not None and self.reason not in _OF_THE_TASK
