"""What a runner is given of a task that was taken up, and what it gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from runstream.domain.executor_task import ExecutorTask
from runstream.events.executor_task import ExecutorTaskEvent
from runstream.executor.ending import Ending
from runstream.executor.room import is_full

Clock = Callable[[], datetime]
"""The time now, in UTC."""


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
