"""The life of an executor task in this process: started in the log, run, reported, forgotten; and why it may end early.

A `Job` is the input of a runner, `Ended` its result. `Ending` holds the reason why a task must end early; the first
reason stays.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import structlog

from runstream.backoff import Backoff, retry
from runstream.domain.executor_task import (
    ExecutorTask,
    decide_abandoned,
    decide_failed,
    decide_report,
    decide_start,
)
from runstream.errors import InternalError, causes
from runstream.events.executor_task import (
    ExecutorTaskEvent,
    ExecutorTaskLogLost,
    ExecutorTaskPhase,
    ExecutorTaskStarted,
)
from runstream.executor.drivers.capabilities import Capabilities
from runstream.executor.reporter import Clock, KnownTask, Reporter
from runstream.executor.workdir import is_full
from runstream.log.port import Log
from runstream.open_files import OpenFilesError, out_of_files

_BACKOFF = Backoff(0.1, 2.0)
log = structlog.get_logger()


class Stage(StrEnum):
    """The stage of a task in this process."""

    SEEN = "seen"
    """Read from the log, but not handled yet."""
    WAITING = "waiting"
    ACTIVE = "active"
    """Running, or being cleaned up."""


@dataclass(slots=True)
class HeldTask:
    """A task that is not forgotten."""

    known: KnownTask
    first: int
    """The sequence of the commit that assigned it."""
    stage: Stage = Stage.SEEN
    reporter: Reporter | None = None

    @property
    def id(self) -> str:
        """The executor task's id."""
        return self.known.task.id


class Execution:
    """The handling of one task by this process."""

    def __init__(self, held: HeldTask, runner: Runner, log: Log, actor: str, clock: Clock) -> None:
        self.ending = Ending()
        self._held = held
        self._runner = runner
        self._clock = clock
        self._reporter = held.reporter = Reporter(log, held.known, actor, clock, self.changed)

    def changed(self, task: ExecutorTask) -> None:
        """Handle a commit of the task by another writer."""
        if task.lost:
            self.ending.signal(EndReason.LOST)
        elif task.open and task.timedout:
            self.ending.signal(EndReason.TIMEOUT)
        elif task.open and task.stop:
            self.ending.signal(EndReason.STOP)

    async def start(self, release: Callable[[], None]) -> None:
        """Start the task unless it has ended meanwhile, and run it to its end; call `release` when it no longer
        runs."""
        try:
            started = await self._reporter.append(lambda task: decide_start(task, self._clock()))
            if not any(isinstance(event, ExecutorTaskStarted) for event in started):
                return
            ended = await self._runner.run(self._job(self._held.known.task))
            await self._reporter.finish(ended.events)
        finally:
            release()
        await self._clean_up(ended)

    async def recover(self) -> None:
        """Clean up a task that an earlier process of this executor left; it is not run again."""
        await self._reporter.reload()
        task = self._held.known.task
        if task.open and task.start_time is None:
            return
        if not task.settled or task.lost:
            ended = await self._cleaned_up()
            await self._reporter.append(lambda task: decide_abandoned(task, self._clock()))
            await self._clean_up(ended)

    async def fail(self, fault: BaseException) -> None:
        """End a task whose handling raised an exception: its processes first, then the task in the log.

        This is the one guard for everything that an executor does for a task. It retries until the log has the end, and
        reports only plain text, which every component can store.
        """
        fault = next(each for each in causes(fault) if not isinstance(each, BaseExceptionGroup))
        if out_of_files(fault):
            error = OpenFilesError().message
        else:
            error = f"disk full: {fault}" if is_full(fault) else f"internal error: {type(fault).__name__}: {fault}"
        error = plain(error)[:1000]
        ended: Ended | None = None
        try:
            ended = await self._cleaned_up()
        except Exception:  # the task ends in the log nevertheless, with its logs as lost
            log.exception("cannot clean up after a task", action="task_left", task=self._held.id)

        async def end() -> None:
            await self._reporter.reload()
            await self._reporter.append(lambda task: decide_failed(task, self._clock(), error))
            await self._reporter.append(lambda task: decide_report(task, lost_logs(task)) if ended is None else ())

        def note(_error: Exception, _: float) -> None:
            log.exception(
                "the end of a task cannot be appended; trying again", action="task_end_waits", task=self._held.id
            )

        await retry(end, Exception, _BACKOFF, note)
        if ended is not None:
            await self._clean_up(ended)

    async def _cleaned_up(self) -> Ended:
        """End the task's leftover processes and upload its logs."""
        ended = await self._runner.recover(self._job(self._held.known.task))
        for event in ended.events:
            self._reporter.report(event)
        await self._reporter.flush()
        return ended

    async def _clean_up(self, ended: Ended) -> None:
        if ended.rest is not None:
            await ended.rest()
            await self._reporter.flush()

    def _job(self, task: ExecutorTask) -> Job:
        known = self._held.known
        return Job(task, known.address.partition, known.trace, self._clock, self._reporter.report, self.ending)


_SHUTDOWN_GRACE_SECONDS = 3.0


class StoppedError(InternalError):
    """The task is being ended."""

    def __init__(self) -> None:
        super().__init__("the task is being ended", code="taskStopped")


class EndReason(StrEnum):
    """The reason why a task must end; the value is shown to users."""

    STOP = "it was asked to stop"
    TIMEOUT = "it exceeded its timeout"
    STEP_TIMEOUT = "a step exceeded its timeout"
    NO_OUTPUT = "a step exceeded its limit without output"
    DISK = "its files exceeded executor.task_disk_bytes"
    DISK_FULL = "the executor's disk is full"
    LOST = "it was declared lost"
    SHUTDOWN = "the executor was stopped"
    DELETED = "the executor was deleted"
    MAINTENANCE = "the deadline of a maintenance passed"
    LEASE = "the executor could not renew its lease in time"


STEP_LIMITS = frozenset({EndReason.STEP_TIMEOUT, EndReason.NO_OUTPUT})
"""Limits of a step, whose log already says that it was exceeded."""
_OF_THE_TASK = frozenset({EndReason.STOP, EndReason.TIMEOUT, EndReason.DISK, EndReason.DISK_FULL, *STEP_LIMITS})


class Ending:
    """The signal to a running task and its threads that it must end."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.stopped = threading.Event()
        """The same signal, for threads."""
        self.reason: EndReason | None = None
        self.stop = False
        """True once a stop was requested, even if there was another reason first."""

    def signal(self, reason: EndReason) -> None:
        """Signal the task to end; the first reason stays."""
        self.stop = self.stop or reason is EndReason.STOP
        if self.reason is None:
            self.reason = reason
        self.requested.set()
        self.stopped.set()

    def grace(self, seconds: float) -> float:
        """Return the grace period for this reason, given the usual one, in seconds."""
        if self.reason is EndReason.LEASE:
            return 0.0  # the scheduler may declare the task lost at any moment
        return min(seconds, _SHUTDOWN_GRACE_SECONDS) if self.reason is EndReason.SHUTDOWN else seconds

    @property
    def step_phase(self) -> ExecutorTaskPhase:
        """The phase of an unsuccessful step (rule step-3)."""
        return ExecutorTaskPhase.STOPPED if self.stop and self.reason not in STEP_LIMITS else ExecutorTaskPhase.FAILED

    @property
    def task_phase(self) -> ExecutorTaskPhase:
        """The phase of an unsuccessful task: failed after a timeout, stopped after a stop (rule step-4)."""
        return ExecutorTaskPhase.FAILED if self.reason is EndReason.TIMEOUT else self.step_phase

    @property
    def interrupted(self) -> bool:
        """True if the executor, and not the task, is the reason."""
        return self.reason is not None and self.reason not in _OF_THE_TASK


def plain(text: str) -> str:
    """Return the text without the characters that some component cannot store: file names may not be UTF-8, and
    Postgres stores no NUL."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


@dataclass(frozen=True, slots=True)
class Job:
    """A task that this executor has begun to handle."""

    task: ExecutorTask
    """The task's state at that moment."""
    partition: int
    trace: str
    clock: Clock
    report: Callable[[ExecutorTaskEvent], None]
    """Schedules an event to be appended, and returns at once."""
    ending: Ending = field(default_factory=Ending)


@dataclass(frozen=True, slots=True)
class Ended:
    """The result of a job."""

    events: tuple[ExecutorTaskEvent, ...]
    """Events to append after the reported ones; the last is ExecutorTaskFinished."""
    rest: Callable[[], Awaitable[None]] | None = None
    """Work left for when the events are in the log; it takes no slot."""


class Runner(Protocol):
    """A way to run jobs."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can run."""

    async def setup(self) -> None:
        """Detect what this machine supports."""

    async def run(self, job: Job) -> Ended:
        """Run a task that was started in the log, until it ends or `job.ending` is signalled."""

    def kept(self, task_id: str) -> bool:
        """Return whether this machine still has files of the task."""

    async def recover(self, job: Job) -> Ended:
        """End what an earlier process left of a task that it had started; return events for its logs."""

    async def sweep(self, kept: frozenset[str]) -> None:
        """End and remove the leftovers of all tasks except the `kept` ones."""

    async def close(self) -> None:
        """Release the runner's resources; no job is running."""


def lost_logs(task: ExecutorTask) -> tuple[ExecutorTaskLogLost, ...]:
    """Report the logs as lost of all steps that have begun and whose logs are not stored."""
    steps = ((None, task.setup_step), *enumerate(task.steps))
    return tuple(
        ExecutorTaskLogLost(index) for index, step in steps if step.start_time is not None and not step.log_settled
    )
