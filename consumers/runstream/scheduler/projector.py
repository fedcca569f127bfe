"""The projector of one partition: it applies changes in order, and those that gather meanwhile in one transaction.

Deciding does not wait for it. While the database fails the changes are kept; their number is bounded, so that a long
outage stops the reading instead of filling the memory. A checkpoint that another process moved ends the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog

from runstream.backoff import Backoff, retry
from runstream.errors import InternalError
from runstream.projections.fold import Changes
from runstream.projections.store import ProjectionStore
from runstream.tables import PROJECTION
from runstream.telemetry.metrics import PROJECTED_COMMITS, PROJECTION_DURATION

logger = structlog.get_logger(__name__)

MAX_BEHIND = 20_000
"""Maximum number of commits that wait for the database before reading pauses."""
PACE_SECONDS = 0.1
"""Minimum interval between the starts of transactions. After a quiet moment a change is applied at once; under load
the changes of one interval are one transaction, which costs little more than that of a single commit."""
BACKOFF = Backoff(0.1, 2.0)
"""Shortest and longest time between attempts while the database fails, in seconds."""


@dataclass(slots=True)
class Projector:
    """A bounded buffer of changes, and the loop that applies them."""

    _store: ProjectionStore
    _on_applied: Callable[[Changes], None]
    """Called with each batch once it is committed."""
    _on_failed: Callable[[str], None] = lambda _: None
    """Called with the error of each attempt."""
    _waiting: Changes | None = None
    _applying: bool = False
    _hurried: int = 0
    """Number of callers of `drained`."""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def put(self, changes: Changes) -> None:
        """Add the changes of a batch; wait while the buffer is full.

        The changes are in the buffer before the first wait, so that the worker forgets nothing of them meanwhile.
        """
        if self._waiting is None:
            self._waiting = changes
        else:
            self._waiting.merge(changes)
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.behind < MAX_BEHIND)

    def waits_for(self, run_id: str) -> bool:
        """Return whether a change of this run is buffered."""
        return self._waiting is not None and run_id in self._waiting.runs

    @property
    def waiting_configs(self) -> Collection[str]:
        """The buffered run configs, which are not in the database yet."""
        return self._waiting.configs.keys() if self._waiting is not None else ()

    async def drained(self) -> None:
        """Wait until all changes are applied, without pause between transactions."""
        async with self._changed:
            self._hurried += 1
            self._changed.notify_all()
            try:
                await self._changed.wait_for(lambda: self._waiting is None and not self._applying)
            finally:
                self._hurried -= 1

    @property
    def behind(self) -> int:
        """Number of commits that wait for the database."""
        return 0 if self._waiting is None else self._waiting.after - self._waiting.before

    async def run(self) -> None:
        """Apply until cancelled. Raises FencedError when another worker has the partition."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._waiting is not None)
                await self._gather(due)
                changes, self._waiting, self._applying = self._waiting, None, True
                self._changed.notify_all()
            due = loop.time() + PACE_SECONDS
            if changes is not None:
                await self._apply(changes)
            async with self._changed:
                self._applying = False
                self._changed.notify_all()

    async def _gather(self, due: float) -> None:
        """Wait until the next transaction is due, or a caller of `drained` needs it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._changed.wait_for(lambda: self._hurried)

    async def _apply(self, changes: Changes) -> None:
        started = time.perf_counter()

        def note(error: InternalError, delay: float) -> None:
            self._on_failed(str(error))
            logger.warning(
                "The projection waits for the database",
                action="projection_waits",
                partition=changes.partition,
                error=str(error),
                seconds=delay,
            )

        await retry(lambda: self._store.apply(changes, unparked=tuple(changes.unparked)), InternalError, BACKOFF, note)
        partition = str(changes.partition)
        PROJECTION_DURATION.record(time.perf_counter() - started, PROJECTION, partition)
        PROJECTED_COMMITS.add(changes.after - changes.before, PROJECTION, partition)
        self._on_applied(changes)
