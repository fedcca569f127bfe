"""Which executors are alive and what they offer, as their leases say; and which have been given up.

    offered --lease expired--> given up            (this process was connected all the while)
    offered --lease released, or we were cut off--> missing --grace--> given up
    never seen, but a task was given to it ------> missing --grace--> given up
    missing, given up --lease there again--> offered

An executor whose lease ran out while we ourselves could not hear it is not blamed at once: it has the time of
one lease to say that it is there. That is also what a restart of everything takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import orjson
import structlog

from runstream.domain.executor import ExecutorState, Offer
from runstream.errors import InternalError
from runstream.leases import LeaseBoard, LeaseChange
from runstream.projections.fold import Changes

logger = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
GONE = "the executor is gone: its lease has expired"


class ExecutorBoard:
    """Follows the leases of executors."""

    def __init__(
        self,
        leases: LeaseBoard,
        grace: float,
        *,
        on_offer: Callable[[str], None],
        on_gone: Callable[[str, str], None],
    ) -> None:
        """`grace` is in seconds; `on_offer` is told who offers something new, `on_gone` who is gone, and why."""
        self.offers: dict[str, Offer] = {}
        self._leases = leases
        self._grace = grace
        self._on_offer = on_offer
        self._on_gone = on_gone
        self._missing: dict[str, asyncio.TimerHandle] = {}
        self._gone: set[str] = set()
        self._to_delete: asyncio.Queue[str] = asyncio.Queue()
        self._reconnects = leases.reconnects
        self._uncertain_until = 0.0

    def gone(self, executor_id: str) -> str | None:
        """Why the executor is given up; None while it may be alive."""
        if executor_id in self.offers:
            return None
        if executor_id in self._gone:
            return GONE
        self._miss(executor_id)
        return None

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks, self._leases.watching() as watch:
                for executor_id, value in watch.held.items():
                    self._offered(executor_id, value)
                tasks.create_task(self._delete())
                async for change in watch:
                    self._take(change)
        finally:
            for timer in self._missing.values():
                timer.cancel()

    def observe(self, changes: Changes) -> None:
        """End the leases of executors that a user deleted."""
        for executor_id in _deleted(changes):
            self._to_delete.put_nowait(executor_id)

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
            self._offered(change.key, change.value)
        elif self.offers.pop(change.key, None) is None:
            return
        elif change.what == "expired" and now >= self._uncertain_until:
            self._give_up(change.key)
        else:
            self._miss(change.key)

    def _offered(self, executor_id: str, value: bytes) -> None:
        try:
            data = orjson.loads(value)
            offer = Offer(**{**data, "archs": tuple(data["archs"])})
        except (ValueError, TypeError, KeyError) as error:
            logger.warning("An offer cannot be read", action="offer_unreadable", executor=executor_id, error=str(error))
            return
        if (timer := self._missing.pop(executor_id, None)) is not None:
            timer.cancel()
        self._gone.discard(executor_id)
        self.offers[executor_id] = offer
        self._on_offer(executor_id)

    def _miss(self, executor_id: str) -> None:
        if executor_id not in self._missing:
            loop = asyncio.get_running_loop()
            self._missing[executor_id] = loop.call_later(self._grace, self._give_up, executor_id)

    def _give_up(self, executor_id: str) -> None:
        if (timer := self._missing.pop(executor_id, None)) is not None:
            timer.cancel()
        self._gone.add(executor_id)
        logger.warning("An executor is given up", action="executor_given_up", executor=executor_id)
        self._on_gone(executor_id, GONE)


def _deleted(changes: Changes) -> Iterable[str]:
    return (key for key, changed in changes.executors.items() if changed.now.state.state is ExecutorState.DELETED)
