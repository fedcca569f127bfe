"""Which partitions this process schedules: one active scheduler for each, shared out evenly, taken over at once.

A partition is owned while a session of Postgres holds its advisory lock. Each partition that this process is to have
gets a connection of its own, on which it waits for the lock (no polling) and then holds it:

    wanted --connect--> waiting --lock granted--> owned --no longer wanted--> worker stopped --> lock released
                           ^                        |
                           +------ backoff <--------+  connection lost: `on_lost` at once, the lock is gone already

When a process dies its connections close and its locks are free; a machine that vanishes is noticed by the server's
keepalives within some seconds. A worker that has not heard of its loss yet does no harm: the checkpoint fences
its projection, and every append names what it was based on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

import asyncpg
import structlog

from runstream.bounded import heard
from runstream.database.connection import hang_up
from runstream.database.database import Database
from runstream.database.locks import partition_lock_key
from runstream.errors import InternalError
from runstream.lifecycle import Component
from runstream.projections.sharing import share_out

RECONNECT_SECONDS = 0.2

log = structlog.get_logger()

Callback = Callable[[int], Awaitable[None]]


class PartitionOwnership(Component):
    """Acquires this instance's share of the partitions, and gives back what is no longer its.

    `live` yields the ids of all living scheduler instances, whenever they change. `on_acquired(partition)` is called
    when the partition is owned; `on_lost(partition)` when it no longer is or is to be given back, and returns when
    its worker has stopped: only then is the lock released.
    """

    name = "partition ownership"

    def __init__(
        self,
        database: Database,
        *,
        namespace: str,
        service: str,
        partitions: int,
        instance: str,
        live: AsyncIterator[Collection[str]],
        on_acquired: Callback,
        on_lost: Callback,
    ) -> None:
        super().__init__()
        self._instance = instance
        self._live = live
        self._holders = [
            _Holder(
                database,
                partition,
                partition_lock_key(database.schema, namespace, service, partition),
                on_acquired,
                on_lost,
            )
            for partition in range(partitions)
        ]

    @property
    def owned(self) -> frozenset[int]:
        """The partitions whose locks this process has now."""
        return frozenset(holder.partition for holder in self._holders if holder.owns)

    async def run(self) -> None:
        """Follow the living instances until `stopping` is set; then give everything back."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(holder.run()) for holder in self._holders]
            tasks.append(group.create_task(self._follow()))
            self.started.set()
            await self.stopping.wait()
            tasks.pop().cancel()
            self._want(frozenset())
            for holder in self._holders:
                await holder.idle.wait()
            for task in tasks:
                task.cancel()

    async def _follow(self) -> None:
        async for instances in self._live:
            shares = share_out(len(self._holders), instances)
            self._want({partition for partition, owner in shares.items() if owner == self._instance})

    def _want(self, wanted: Collection[int]) -> None:
        for holder in self._holders:
            holder.want(holder.partition in wanted)


class _Holder:
    """Owns one partition for as long as it is wanted and its connection lives."""

    def __init__(self, database: Database, partition: int, key: int, on_acquired: Callback, on_lost: Callback) -> None:
        self.partition = partition
        self.owns = False
        self.idle = asyncio.Event()
        """Set while the partition is not wanted and nothing of it is left."""
        self._database = database
        self._key = key
        self._on_acquired = on_acquired
        self._on_lost = on_lost
        self._wanted = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._told = ""
        self.want(False)
        self.idle.set()

    def want(self, wanted: bool) -> None:
        """Say whether the partition is to be owned from now on."""
        now, before = (self._wanted, self._unwanted) if wanted else (self._unwanted, self._wanted)
        now.set()
        before.clear()
        if wanted:
            self.idle.clear()

    async def run(self) -> None:
        """Own it whenever it is wanted, until cancelled."""
        while True:
            if not self._wanted.is_set():
                self.idle.set()
            await self._wanted.wait()
            try:
                await self._hold()
            except (InternalError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                self._tell(str(error))
                await heard(self._unwanted, RECONNECT_SECONDS)

    def _tell(self, why: str) -> None:
        """Say why the partition cannot be owned, once for each reason: it is tried again very soon."""
        if why != self._told:
            self._told = why
            log.warning("a partition cannot be owned now", action="lock_failed", partition=self.partition, error=why)

    async def _hold(self) -> None:
        """Wait for the lock, then keep it until the partition is no longer wanted or the connection is lost."""
        connection = await self._database.connect(watchful=True)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            if await self._locked(connection):
                await self._owned(lost)
        finally:
            await hang_up(connection)

    async def _locked(self, connection: asyncpg.Connection[asyncpg.Record]) -> bool:
        """Wait for the lock; False when the partition is no longer wanted before that."""
        lock = asyncio.create_task(connection.execute("SELECT pg_advisory_lock($1)", self._key))
        unwanted = asyncio.create_task(self._unwanted.wait())
        try:
            await asyncio.wait({lock, unwanted}, return_when=asyncio.FIRST_COMPLETED)
            return lock.done() and bool(lock.result())
        finally:
            unwanted.cancel()
            if not lock.done():
                connection.terminate()
                await asyncio.wait({lock})
                lock.exception()

    async def _owned(self, lost: asyncio.Event) -> None:
        self.owns = True
        self._told = ""
        log.info("a partition is owned", action="partition_acquired", partition=self.partition)
        try:
            await self._on_acquired(self.partition)
            await _either(lost, self._unwanted)
        finally:
            self.owns = False
            log.info("a partition is given back", action="partition_lost", partition=self.partition, lock=lost.is_set())
            await self._on_lost(self.partition)


async def _either(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
