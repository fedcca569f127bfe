"""Behind the deciding, the projection: changes are applied in order, those that gathered meanwhile at once.

A database that fails is waited for, with the changes kept; what is kept is bounded, so that a long outage
holds up the reading instead of filling the memory. A checkpoint that somebody else moved ends the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection

import structlog

from runstream.errors import InternalError
from runstream.projections.fold import Changes
from runstream.projections.store import ProjectionStore
from runstream.tables import PROJECTION
from runstream.telemetry.metrics import PROJECTED_COMMITS, PROJECTION_DURATION

logger = structlog.get_logger(__name__)

MAX_BEHIND = 20_000
"""Commits that may wait for the database before reading pauses."""
PACE_SECONDS = 0.1
"""How far apart transactions begin at least. After a quiet moment a change is applied at once; in a busy one the
changes of so long are one transaction, which costs little more than that of a single commit."""
FIRST_BACKOFF = 0.1
LAST_BACKOFF = 2.0
"""Seconds between attempts while the database fails."""


class Projector:
    """Applies what one worker gives it."""

    def __init__(
        self,
        store: ProjectionStore,
        on_applied: Callable[[Changes], None],
        on_failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_applied` is called with each batch once it is committed; `on_failed` with the error of each attempt."""
        self._store = store
        self._on_applied = on_applied
        self._on_failed = on_failed
        self._waiting: Changes | None = None
        self._applying = False
        self._hurried = 0
        """How many wait until everything is applied."""
        self._changed = asyncio.Condition()

    async def put(self, changes: Changes) -> None:
        """Hand over what a batch changed; waits while too much waits already.

        From its first moment on the changes are known to wait: nothing of them may be forgotten meanwhile.
        """
        if self._waiting is None:
            self._waiting = changes
        else:
            self._waiting.merge(changes)
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.behind < MAX_BEHIND)

    def waits_for(self, run_id: str) -> bool:
        """Whether a change of this run is still to be applied."""
        return self._waiting is not None and run_id in self._waiting.runs

    @property
    def waiting_configs(self) -> Collection[str]:
        """The run configs that are still to be applied: nobody finds them in the database yet."""
        return self._waiting.configs.keys() if self._waiting is not None else ()

    async def drained(self) -> None:
        """Wait until everything handed over is applied."""
        async with self._changed:
            self._hurried += 1
            self._changed.notify_all()
            try:
                await self._changed.wait_for(lambda: self._waiting is None and not self._applying)
            finally:
                self._hurried -= 1

    @property
    def behind(self) -> int:
        """How many commits wait for the database."""
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
        """Let changes come until the next transaction is due, or somebody waits for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._changed.wait_for(lambda: self._hurried)

    async def _apply(self, changes: Changes) -> None:
        backoff = FIRST_BACKOFF
        started = time.perf_counter()
        while True:
            try:
                await self._store.apply(changes, unparked=tuple(changes.unparked))
                break
            except InternalError as error:
                self._on_failed(str(error))
                logger.warning(
                    "The projection waits for the database",
                    action="projection_waits",
                    partition=changes.partition,
                    error=str(error),
                    seconds=backoff,
                )
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF)
        partition = str(changes.partition)
        PROJECTION_DURATION.record(time.perf_counter() - started, PROJECTION, partition)
        PROJECTED_COMMITS.add(changes.after - changes.before, PROJECTION, partition)
        self._on_applied(changes)
