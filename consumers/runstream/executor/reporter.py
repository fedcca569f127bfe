"""Appends the events of one executor task, each commit based on the task's last known one.

Events are gathered for a moment, and while an append is in flight, so that a short task takes two commits. If another
writer was first (a stop, a timeout, a loss), its commit is read, and the events that are still valid are decided again.
While the log is unavailable, reports wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TypeVar

import structlog

from runstream.backoff import Backoff, retry
from runstream.codec import decode
from runstream.commits import Head, StoredCommit
from runstream.domain import executor_task as executor_tasks
from runstream.domain.executor_task import ExecutorTask, decide_report
from runstream.errors import BadRequestError, InternalError, RemoteError, RunstreamError
from runstream.events.executor_task import ExecutorTaskAssigned, ExecutorTaskEvent
from runstream.folding import fold_if_fit, follows
from runstream.ids import new_id
from runstream.log.port import AppendConflictError, Log, RawMessage
from runstream.subjects import Address

Clock = Callable[[], datetime]
"""The time now, in UTC."""

GATHER_SECONDS = 0.1
"""Time over which events are gathered while a task runs, in seconds."""
_BACKOFF = Backoff(0.05, 2.0)
_ATTEMPTS = 20

log = structlog.get_logger()
T = TypeVar("T")
Events = tuple[ExecutorTaskEvent, ...]


@dataclass(slots=True)
class KnownTask:
    """The known state of an executor task."""

    address: Address
    task: ExecutorTask
    head: Head
    trace: str
    """The trace of its assignment."""
    cause: str
    """The id of its assignment's commit."""

    def apply(self, stored: StoredCommit) -> bool:
        """Apply a commit if it is the next one, or a skipped one; return whether it was."""
        if not follows(self.head, stored):
            return False
        self.task, unfit = fold_if_fit(self.task, stored.commit)
        if unfit is not None:  # later events can still be appended
            log.warning(f"ignoring a commit of a task: {unfit}", action="commit_unfit", task=self.task.id)
        self.head = Head(stored.commit.version, stored.position.sequence)
        return True


def decoded(message: RawMessage) -> StoredCommit | None:
    """Decode a commit; return None for an unreadable one, with a warning."""
    try:
        return decode(message)
    except BadRequestError as error:
        log.warning(f"ignoring a commit: {error}", action="commit_unreadable", subject=message.subject)
        return None


@dataclass(slots=True)
class Reporter:
    """The reporter of one task. All methods are called by one event loop."""

    _log: Log
    known: KnownTask
    _actor: str
    _clock: Clock
    _changed: Callable[[ExecutorTask], None]
    """Called when a commit by another writer was read."""
    _pending: list[ExecutorTaskEvent] = field(default_factory=list)
    _observed: list[RawMessage] = field(default_factory=list)
    """Commits that arrived during an append; only its answer tells their order."""
    _appending: asyncio.Lock = field(default_factory=asyncio.Lock)
    _gathering: asyncio.Task[None] | None = None
    _fault: Exception | None = None
    """The error of a background append, whose events are not in the log."""

    def observe(self, message: RawMessage) -> None:
        """Handle a commit of the task from the log, by this process or another writer."""
        self._observed.append(message)
        if not self._appending.locked():
            self._take_in()

    def report(self, event: ExecutorTaskEvent) -> None:
        """Schedule an event to be appended soon."""
        self._pending.append(event)
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._gather())

    async def finish(self, events: Events) -> None:
        """Append all pending events and these as one commit."""
        if self._fault is not None:
            raise self._fault
        self._pending.extend(events)
        await self.flush()

    async def flush(self) -> None:
        """Append the pending events."""
        if self._gathering is not None:
            self._gathering.cancel()
        pending: list[ExecutorTaskEvent] = []

        def decide(task: ExecutorTask) -> Events:
            pending.extend(self._pending)
            self._pending.clear()
            return decide_report(task, tuple(pending))

        await self.append(decide)

    async def append(self, decide: Callable[[ExecutorTask], Events]) -> Events:
        """Append the events that `decide` returns for the newest state; return the appended ones, if any.

        Raises AppendConflictError when other writers were first many times in a row, BadRequestError when the
        commit cannot be one. Waits as long as the log is away.
        """
        async with self._exclusive():
            for _ in range(_ATTEMPTS):
                known = self.known
                events = decide(known.task)
                if not events:
                    return ()
                commit = known.head.next_commit(
                    known.address,
                    events,
                    time=self._clock(),
                    actor=self._actor,
                    cause=known.cause,
                    trace=known.trace,
                    # With a derived id, this process would mistake a start by another process of this executor for its
                    # own.
                    identity=new_id(),
                )
                try:
                    position = await self._until_there(partial(self._log.append, commit))
                except AppendConflictError as error:
                    conflict = error
                    await self._reload()
                    continue
                for event in events:
                    if not isinstance(event, ExecutorTaskAssigned):
                        known.task = executor_tasks.evolve(known.task, event)
                known.head = Head(commit.version, position.sequence)
                return events
            raise conflict

    async def reload(self) -> None:
        """Read the task's history from the log."""
        async with self._exclusive():
            await self._reload()

    @contextlib.asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        async with self._appending:
            try:
                yield
            finally:
                self._take_in()

    def _take_in(self) -> None:
        news = False
        for message in self._observed:
            # Our own commits are applied already, and are not decoded again.
            if message.position.sequence > self.known.head.sequence and (stored := decoded(message)) is not None:
                news = self.known.apply(stored) or news
        self._observed.clear()
        if news:
            self._changed(self.known.task)

    async def _gather(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        self._gathering = None  # From here on it cannot be cancelled.
        try:
            await self.flush()
        except Exception as error:
            self._fault = error
            log.exception(
                f"a report of task {self.known.task.id} is refused",
                action="report_refused",
                task=self.known.task.id,
            )

    async def _reload(self) -> None:
        for stored in await self._until_there(partial(self._log.history, self.known.address)):
            self.known.apply(stored)
        self._changed(self.known.task)

    async def _until_there(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Call the log repeatedly until it can be reached; return its answer."""
        task = self.known.task.id

        def note(error: RunstreamError, _: float) -> None:
            log.warning(f"a report of task {task} waits: {error}", action="report_waits", task=task, error=str(error))

        return await retry(ask, (InternalError, RemoteError), _BACKOFF, note)
