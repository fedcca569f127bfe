"""The executor registry: which executors are alive by their leases, what they offer, and which are lost.

    live --not renewed for 5 s--> suspect --renewed--> live          (a suspect executor gets no new task)
    live, suspect --lease expired, and not renewed for its whole duration by our clock--> lost
    live, suspect --lease released, or we were disconnected--> missing --grace--> lost
    registered or given a task, but never seen --> missing --grace--> lost
    missing, lost --lease taken again--> live

An executor that released its lease was stopped: once it is lost, users see it as offline.

The time since a renewal is measured by this process's monotonic clock, from the moment when the renewal was read. The
executor's own trust window began earlier and ends before it, so a lost executor has ended its tasks. A server whose
clock jumps expires a lease early; then the rest of its duration is waited for. An executor whose lease expired while
we were disconnected gets the duration of one more lease to show that it is alive, as after a restart of everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from runstream.backoff import Backoff, retry
from runstream.domain.executor import SKEW_SECONDS, SUSPECT_SECONDS, ExecutorState, Offer
from runstream.errors import InternalError
from runstream.events.executor import ExecutorLost
from runstream.leases import LeaseBucket, LeaseChange, decode_offer
from runstream.lifecycle import BackgroundTasks
from runstream.projections.fold import Changes
from runstream.telemetry.metrics import CLOCK_SKEW

logger = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
GONE = "executor lost: it has not renewed its lease in time"


@dataclass(slots=True)
class ExecutorRegistry:
    """The known executors, kept up to date from their leases."""

    leases: LeaseBucket
    grace: float
    """The grace period after the end of a lease, in seconds."""
    on_offer: Callable[[str], None]
    """Gets the id of each executor with a new offer."""
    on_gone: Callable[[str, str], None]
    """Gets the id of each lost executor, and why."""
    on_suspect: Callable[[str], None] = lambda _: None
    on_time: Callable[[float], None] = lambda _: None
    """Gets the server's time of each renewal that has just arrived, in seconds since 1970."""
    offers: dict[str, Offer] = field(default_factory=dict)
    """Offers of the executors that may get tasks."""
    _last_seen: dict[str, datetime] = field(default_factory=dict)
    """Time of the last renewal of each executor that was ever seen."""
    _renewed: dict[str, float] = field(default_factory=dict)
    """Time at which the last renewal of each living executor was read, by the event loop's clock."""
    _skews: dict[str, float] = field(default_factory=dict)
    _suspecting: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    _missing: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    _released: set[str] = field(default_factory=set)
    """The executors whose last lease was released."""
    _to_delete: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _reconnects: int = 0
    _uncertain_until: float = 0.0

    def __post_init__(self) -> None:
        self._reconnects = self.leases.reconnects

    def gone(self, executor_id: str) -> str | None:
        """Return why the executor is lost; None while it may be alive."""
        if executor_id in self._renewed:
            return None
        if executor_id in self._gone:
            return GONE
        self._miss(executor_id, self.grace)
        return None

    def skew(self, executor_id: str) -> float | None:
        """Return how far the executor's clock is ahead of the log's server, in seconds; None if it was never seen."""
        return self._skews.get(executor_id)

    def loss(self, executor_id: str) -> ExecutorLost:
        """Return the event that declares the executor lost."""
        return ExecutorLost(self._last_seen.get(executor_id), executor_id in self._released)

    async def run(self) -> None:
        """Follow the leases until cancelled."""
        try:
            async with BackgroundTasks() as background, self.leases.watching(patient=True) as watch:
                self._released |= watch.released
                stored = watch.stored
                for executor_id, value in watch.held.items():
                    self._offered(executor_id, value, stored[executor_id])
                background.keep(self._delete())
                async for change in watch:
                    self._apply(change)
        finally:
            for timer in (*self._missing.values(), *self._suspecting.values()):
                timer.cancel()

    def observe(self, changes: Changes) -> None:
        """End the leases of executors that a user deleted; expect those of executors that registered."""
        for executor_id, changed in changes.executors.items():
            if changed.now.state.state is ExecutorState.DELETED:
                self._to_delete.put_nowait(executor_id)
            elif changed.now.state.state is ExecutorState.REGISTERED:
                self._gone.discard(executor_id)
                self.gone(executor_id)

    async def _delete(self) -> None:
        while True:
            executor_id = await self._to_delete.get()

            async def delete(executor_id: str = executor_id) -> None:
                await self.leases.delete(executor_id)

            def note(error: InternalError, _delay: float, executor_id: str = executor_id) -> None:
                logger.warning(
                    "The lease of a deleted executor is ended later",
                    action="lease_kept",
                    executor=executor_id,
                    error=str(error),
                )

            await retry(delete, InternalError, Backoff(RETRY_SECONDS), note)

    def _apply(self, change: LeaseChange) -> None:
        now = asyncio.get_running_loop().time()
        if self.leases.reconnects != self._reconnects:
            self._reconnects = self.leases.reconnects
            self._uncertain_until = now + self.grace
        if change.what == "held":
            if change.nanoseconds:
                self.on_time(change.nanoseconds / 1e9)
            self._offered(change.key, change.value, change.nanoseconds)
            return
        if change.what == "released":
            self._released.add(change.key)
        self._withdraw(change.key)
        renewed = self._renewed.pop(change.key, None)
        if renewed is None:
            return
        left = renewed + self.grace - now
        if change.what == "expired" and now >= self._uncertain_until:
            self._miss(change.key, max(left, 0.0))
        else:
            self._miss(change.key, self.grace)

    def _offered(self, executor_id: str, value: bytes, nanoseconds: int) -> None:
        offer = decode_offer(executor_id, value)
        if offer is None:
            return
        if (timer := self._missing.pop(executor_id, None)) is not None:
            timer.cancel()
        self._gone.discard(executor_id)
        self._released.discard(executor_id)
        self._note_clock(offer, nanoseconds / 1e9)
        loop = asyncio.get_running_loop()
        self._renewed[executor_id] = loop.time()
        self._last_seen[executor_id] = datetime.now(UTC)
        self._withdraw(executor_id)
        self._suspecting[executor_id] = loop.call_later(SUSPECT_SECONDS, self._suspect, executor_id)
        self.offers[executor_id] = offer
        self.on_offer(executor_id)

    def _note_clock(self, offer: Offer, stored: float) -> None:
        """Compare the executor's clock with the server's.

        The difference includes the time that the renewal was in flight, so one of a few seconds counts as none.
        """
        skew = offer.at - stored if offer.at and stored else 0.0
        before = self._skews.get(offer.executor_id, 0.0)
        self._skews[offer.executor_id] = skew if abs(skew) > SKEW_SECONDS else 0.0
        CLOCK_SKEW.set(skew, offer.executor_id)
        if abs(skew) > SKEW_SECONDS >= abs(before):
            logger.warning(
                "The clock of an executor is wrong", action="executor_skew", executor=offer.executor_id, seconds=skew
            )

    def _suspect(self, executor_id: str) -> None:
        logger.warning("An executor has not renewed its lease", action="executor_suspect", executor=executor_id)
        self._withdraw(executor_id)
        self.on_suspect(executor_id)

    def _withdraw(self, executor_id: str) -> None:
        """Withdraw the executor's offer: it gets no more tasks."""
        self.offers.pop(executor_id, None)
        if (timer := self._suspecting.pop(executor_id, None)) is not None:
            timer.cancel()

    def _miss(self, executor_id: str, seconds: float) -> None:
        if executor_id not in self._missing:
            if seconds <= 0:
                self._lose(executor_id)
                return
            loop = asyncio.get_running_loop()
            self._missing[executor_id] = loop.call_later(seconds, self._lose, executor_id)

    def _lose(self, executor_id: str) -> None:
        if (timer := self._missing.pop(executor_id, None)) is not None:
            timer.cancel()
        self._gone.add(executor_id)
        if executor_id in self._released:
            logger.info("An executor was stopped", action="executor_offline", executor=executor_id)
        else:
            logger.warning("An executor is lost", action="executor_given_up", executor=executor_id)
        self.on_gone(executor_id, GONE)
