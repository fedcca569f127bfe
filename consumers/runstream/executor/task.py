"""The life of one executor task here: started in the log, run, reported, forgotten; and why it may end early.

A `Job` is what a runner gets of a task, `Ended` what it gives back. `Ending` holds why a task has to end before its
steps are done: the first reason stays.
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
from runstream.errors import InternalError
from runstream.events.executor_task import (
    ExecutorTaskEvent,
    ExecutorTaskLogLost,
    ExecutorTaskPhase,
    ExecutorTaskStarted,
)
from runstream.executor.reporter import Clock, Known, Reporter
from runstream.executor.workdir import is_full
from runstream.log.port import Log

_BACKOFF = Backoff(0.1, 2.0)
log = structlog.get_logger()


class Stage(StrEnum):
    """What this process does about a task."""

    SEEN = "seen"
    """Read, but not looked at yet."""
    WAITING = "waiting"
    ACTIVE = "active"
    """Taken up, whether it runs or is being cleared up."""


@dataclass(slots=True)
class Held:
    """One task that is not forgotten."""

    known: Known
    first: int
    """The sequence of its assignment."""
    stage: Stage = Stage.SEEN
    reporter: Reporter | None = None

    @property
    def id(self) -> str:
        """The executor task's id."""
        return self.known.task.id


class Execution:
    """What this process does about one task."""

    def __init__(self, held: Held, runner: Runner, log: Log, actor: str, clock: Clock) -> None:
        self.ending = Ending()
        self._held = held
        self._runner = runner
        self._clock = clock
        self._reporter = held.reporter = Reporter(log, held.known, actor, clock, self.changed)

    def changed(self, task: ExecutorTask) -> None:
        """Take note of a commit of the task by another writer."""
        if task.lost:
            self.ending.tell(Reason.LOST)
        elif task.open and task.timedout:
            self.ending.tell(Reason.TIMEOUT)
        elif task.open and task.stop:
            self.ending.tell(Reason.STOP)

    async def start(self, release: Callable[[], None]) -> None:
        """Start the task if that is still to be done, and see it through; `release` when it no longer runs."""
        try:
            started = await self._reporter.append(lambda task: decide_start(task, self._clock()))
            if not any(isinstance(event, ExecutorTaskStarted) for event in started):
                return
            ended = await self._run()
        finally:
            release()
        await self._see_off(ended)

    async def recover(self) -> None:
        """See to a task that an earlier process of this executor left: it is not run again."""
        await self._reporter.reload()
        task = self._held.known.task
        if task.open and task.start_time is None:
            return
        if not task.settled or task.lost:
            ended = await self._runner.recover(self._job(task))
            for event in ended.events:
                self._reporter.report(event)
            await self._abandon()
            await self._see_off(ended)

    async def fail(self, fault: BaseException) -> None:
        """End a task in whose handling anything was raised: its processes, then the task in the log.

        The one guard of all that an executor does about a task. It tries until the log has taken the end, and says
        nothing but plain text that every part can store.
        """
        error = fault_text(fault)
        ended = await self._cleared()

        async def end() -> None:
            await self._reporter.reload()
            await self._reporter.append(lambda task: decide_failed(task, self._clock(), error))
            await self._reporter.append(lambda task: decide_report(task, lost_logs(task)) if ended is None else ())

        def note(_error: Exception, _: float) -> None:
            log.exception("a task's end is tried again", action="task_end_waits", task=self._held.id)

        await retry(end, Exception, _BACKOFF, note)
        if ended is not None:
            await self._see_off(ended)

    async def _cleared(self) -> Ended | None:
        """End what the task left on this machine, and store its logs; None when that fails too."""
        try:
            ended = await self._runner.recover(self._job(self._held.known.task))
            for event in ended.events:
                self._reporter.report(event)
            await self._reporter.flush()
        except Exception:
            log.exception("what a task left cannot be cleared up", action="task_left", task=self._held.id)
            return None
        return ended

    async def _run(self) -> Ended:
        ended = await self._runner.run(self._job(self._held.known.task))
        await self._reporter.finish(ended.events)
        return ended

    async def _abandon(self) -> None:
        """End the task as failed, if it is running: the executor was restarted."""
        await self._reporter.flush()
        await self._reporter.append(lambda task: decide_abandoned(task, self._clock()))

    async def _see_off(self, ended: Ended) -> None:
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
            return 0.0  # the scheduler may declare it lost at any moment
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


def plain(text: str) -> str:
    """Return the text as every part can store it: names of files may be no UTF-8, and Postgres stores no NUL."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


def fault_text(fault: BaseException) -> str:
    """What the failure of a task says of a fault in its handling, bounded."""
    if is_full(fault):
        return plain(f"disk full: {fault}")[:1000]
    return plain(f"internal error: {type(fault).__name__}: {fault}")[:1000]


@dataclass(frozen=True, slots=True)
class Job:
    """One task that this executor has taken up."""

    task: ExecutorTask
    """As it was when it was taken up."""
    partition: int
    trace: str
    clock: Clock
    report: Callable[[ExecutorTaskEvent], None]
    """Has an event appended soon; returns at once."""
    ending: Ending = field(default_factory=Ending)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended."""

    events: tuple[ExecutorTaskEvent, ...]
    """What is to be appended beside everything reported, ExecutorTaskFinished included."""
    rest: Callable[[], Awaitable[None]] | None = None
    """What remains to be done when that is in the log: it does not count as running."""


class Runner(Protocol):
    """Runs jobs."""

    allow_host: bool
    allow_pod: bool

    @property
    def sandbox(self) -> str:
        """How tasks are kept apart from the machine, for people; known after `setup`."""
        ...

    async def setup(self) -> None:
        """Find out what works on this machine."""
        ...

    async def run(self, job: Job) -> Ended:
        """Run a task that was started in the log, until its end or until `job.ending` is told."""
        ...

    def kept(self, task_id: str) -> bool:
        """Whether something of the task is left on this machine."""
        ...

    async def recover(self, job: Job) -> Ended:
        """End what an earlier process left of a task that it had started; the events say what became of its logs."""
        ...

    async def sweep(self, kept: frozenset[str]) -> None:
        """End and remove what is left on this machine of all tasks but the kept ones."""
        ...

    async def close(self) -> None:
        """Let go of everything; no job runs any more."""
        ...


def lost_logs(task: ExecutorTask) -> tuple[ExecutorTaskLogLost, ...]:
    """Return that the logs are lost of all steps that began and whose logs are not stored."""
    steps = ((None, task.setup_step), *enumerate(task.steps))
    return tuple(
        ExecutorTaskLogLost(index) for index, step in steps if step.start_time is not None and not step.log_settled
    )
