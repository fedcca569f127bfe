"""Which executors are alive and what they offer, as their leases say; and which have been given up.

    offered --not renewed for 5 s--> suspect --renewed--> offered          (a suspect gets no new task)
    offered, suspect --lease expired, and not renewed for its whole time by our clock--> given up
    offered, suspect --lease released, or we were cut off--> missing --grace--> given up
    registered or given a task, but never heard of --> missing --grace--> given up
    missing, given up --lease there again--> offered

The time since a renewal is measured by this process's monotonic clock, from the moment when the renewal was read: the
executor's own trust window began earlier, and ends before. A server whose clock jumps ends a lease early; then the
rest of its time is waited for. An executor whose lease ran out while we ourselves could not hear it has the time of
one more lease to say that it is there. That is also what a restart of everything takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from runstream.domain.executor import SKEW_SECONDS, SUSPECT_SECONDS, ExecutorState, Offer
from runstream.errors import InternalError
from runstream.leases import LeaseBucket, LeaseChange, decode_offer
from runstream.projections.fold import Changes
from runstream.telemetry.metrics import CLOCK_SKEW

logger = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
GONE = "executor lost: it has not renewed its lease in time"


class ExecutorBoard:
    """Follows the leases of executors."""

    def __init__(
        self,
        leases: LeaseBucket,
        grace: float,
        *,
        on_offer: Callable[[str], None],
        on_gone: Callable[[str, str], None],
        on_suspect: Callable[[str], None] = lambda _: None,
        on_time: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`grace` is in seconds; `on_offer` is told who offers something new, `on_gone` who is gone, and why.

        `on_time` is called with the server's time of each renewal that has just arrived, in seconds since 1970.
        """
        self.offers: dict[str, Offer] = {}
        """Of executors that may get tasks."""
        self._leases = leases
        self._grace = grace
        self._on_offer = on_offer
        self._on_gone = on_gone
        self._on_suspect = on_suspect
        self._on_time = on_time
        self._heard: dict[str, float] = {}
        """When each living executor was heard of last, on the event loop's clock."""
        self._skews: dict[str, float] = {}
        self._last_seen: dict[str, datetime] = {}
        self._suspecting: dict[str, asyncio.TimerHandle] = {}
        self._missing: dict[str, asyncio.TimerHandle] = {}
        self._gone: set[str] = set()
        self._to_delete: asyncio.Queue[str] = asyncio.Queue()
        self._reconnects = leases.reconnects
        self._uncertain_until = 0.0

    def gone(self, executor_id: str) -> str | None:
        """Why the executor is given up; None while it may be alive."""
        if executor_id in self._heard:
            return None
        if executor_id in self._gone:
            return GONE
        self._miss(executor_id, self._grace)
        return None

    def skew(self, executor_id: str) -> float | None:
        """How far the executor's clock is ahead of the log's server, in seconds; None when it was never heard of."""
        return self._skews.get(executor_id)

    def last_seen(self, executor_id: str) -> datetime | None:
        """When the executor was heard of last; None when it never was."""
        return self._last_seen.get(executor_id)

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks, self._leases.watching() as watch:
                stored = watch.stored
                for executor_id, value in watch.held.items():
                    self._offered(executor_id, value, stored[executor_id])
                tasks.create_task(self._delete())
                async for change in watch:
                    self._take(change)
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
            try:
                await self._leases.delete(executor_id)
            except InternalError as error:
                logger.warning("A lease is ended later", action="lease_kept", executor=executor_id, error=str(error))
                self._to_delete.put_nowait(executor_id)
                await asyncio.sleep(RETRY_SECONDS)

    def _take(self, change: LeaseChange) -> None:
        now = asyncio.get_running_loop().time()
        if self._leases.reconnects != self._reconnects:
            self._reconnects = self._leases.reconnects
            self._uncertain_until = now + self._grace
        if change.what == "held":
            if change.nanoseconds:
                self._on_time(change.nanoseconds / 1e9)
            self._offered(change.key, change.value, change.nanoseconds)
            return
        self._withdrawn(change.key)
        heard = self._heard.pop(change.key, None)
        if heard is None:
            return
        left = heard + self._grace - now
        if change.what == "expired" and now >= self._uncertain_until:
            self._miss(change.key, max(left, 0.0))
        else:
            self._miss(change.key, self._grace)

    def _offered(self, executor_id: str, value: bytes, nanoseconds: int) -> None:
        offer = decode_offer(executor_id, value)
        if offer is None:
            return
        if (timer := self._missing.pop(executor_id, None)) is not None:
            timer.cancel()
        self._gone.discard(executor_id)
        self._note_clock(offer, nanoseconds / 1e9)
        loop = asyncio.get_running_loop()
        self._heard[executor_id] = loop.time()
        self._last_seen[executor_id] = datetime.now(UTC)
        self._withdrawn(executor_id)
        self._suspecting[executor_id] = loop.call_later(SUSPECT_SECONDS, self._suspect, executor_id)
        self.offers[executor_id] = offer
        self._on_offer(executor_id)

    def _note_clock(self, offer: Offer, stored: float) -> None:
        """Compare the executor's clock with the server's; one that differs by less than some seconds counts as right.

        What is measured holds the time that the renewal was on its way.
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
        self._withdrawn(executor_id)
        self._on_suspect(executor_id)

    def _withdrawn(self, executor_id: str) -> None:
        """Give the executor no more tasks."""
        self.offers.pop(executor_id, None)
        if (timer := self._suspecting.pop(executor_id, None)) is not None:
            timer.cancel()

    def _miss(self, executor_id: str, seconds: float) -> None:
        if executor_id not in self._missing:
            if seconds <= 0:
                self._give_up(executor_id)
                return
            loop = asyncio.get_running_loop()
            self._missing[executor_id] = loop.call_later(seconds, self._give_up, executor_id)

    def _give_up(self, executor_id: str) -> None:
        if (timer := self._missing.pop(executor_id, None)) is not None:
            timer.cancel()
        self._gone.add(executor_id)
        logger.warning("An executor is given up", action="executor_given_up", executor=executor_id)
        self._on_gone(executor_id, GONE)
