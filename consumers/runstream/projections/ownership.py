"""Partition ownership: one active scheduler for each partition, shared evenly, taken over within seconds.

A process owns a partition while its Postgres session holds the advisory lock. Each partition in this process's share
gets a connection of its own, which waits for the lock and then holds it:

    wanted --connect--> waiting --lock granted--> owned --no longer wanted--> worker stopped --> lock released
                           ^                        |
                           +------ backoff <--------+  connection lost, or Postgres does not answer: `on_lost` at once

When a process dies, its connections close and its locks are free. A process that hangs keeps its session: the
successor asks Postgres for the holder of the lock, and ends the session of an instance that is dead or does not give
back the successor's share. A process that cannot reach Postgres says so (`on_reach`), and peers take its share.

A worker that has not yet noticed its loss does no harm: the checkpoint fences its projection, and every append names
the version that it is based on.

A rebuild or an import owns all partitions for a moment (`all_owned`): it queues for each lock and ends the holder's
session. The holder stops its worker, reconnects, queues behind, and starts from the rows that it finds then.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import structlog

from runstream.backoff import Backoff, retry
from runstream.database.connection import HOLDERS, Connection, hang_up, partition_lock_key
from runstream.database.database import Database
from runstream.errors import InternalError, chain_lines
from runstream.lifecycle import BackgroundTasks, Component, only_asked_cancellation, wait_for_event, wait_for_first


def assign_partitions(partitions: int, instances: Collection[str]) -> dict[int, str]:
    """Return the instance of each partition; empty without instances.

    Even: instances differ by at most one partition. Steady: each partition ranks the instances in an order of its
    own (rendezvous hashing) and takes the first that has room, so that few partitions move when an instance
    comes or goes.
    """
    if not instances:
        return {}
    each, extra = divmod(partitions, len(instances))
    load = dict.fromkeys(instances, 0)
    shares: dict[int, str] = {}
    for partition in range(partitions):
        chosen = next(
            instance
            for instance in sorted(load, key=lambda one: _rank(partition, one))
            if load[instance] < each or (load[instance] == each and extra > 0)
        )
        extra -= load[chosen] == each
        load[chosen] += 1
        shares[partition] = chosen
    return shares


def _rank(partition: int, instance: str) -> bytes:
    return hashlib.blake2b(f"{partition}/{instance}".encode(), digest_size=8).digest()


RECONNECT_SECONDS = 0.2
_AWAY = (InternalError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""Errors of a database that does not answer now."""
LOCK_SECONDS = 1.0
"""Seconds to wait for a lock before checking its holder."""
GIVE_BACK_SECONDS = 8.0
"""Seconds that a live instance has to give back a peer's partition."""
STOP_SECONDS = 3.0
"""Seconds that a worker has to stop before the lock is released anyway."""
PING_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""Seconds between pings of Postgres, and the limit for an answer."""

log = structlog.get_logger()

Callback = Callable[[int], Awaitable[None]]


@dataclass(eq=False, kw_only=True)
class PartitionOwnership(Component):
    """The partitions of this instance: acquires its share, and gives back what belongs to a peer."""

    name = "partition ownership"
    database: Database = field(kw_only=False)
    namespace: str
    service: str
    partitions: int
    instance: str
    live: AsyncIterator[Collection[str]]
    """Yields the ids of all living scheduler instances, whenever they change."""
    on_acquired: Callback
    """Called with a partition when it is owned."""
    on_lost: Callback
    """Called with a partition when it is lost or given back; returns when its worker has stopped: only then is the
    lock released."""
    on_reach: Callable[[bool], None] = lambda _: None

    def __post_init__(self) -> None:
        super().__init__()
        self._living: Collection[str] = ()
        self._unreachable = asyncio.Event()
        self._holders = [
            _Holder(
                self.database,
                partition,
                partition_lock_key(self.database.schema, self.namespace, self.service, partition),
                self.on_acquired,
                self.on_lost,
                PeerSessions(self.database.application, self.instance, lambda: self._living),
                self._report_reach,
            )
            for partition in range(self.partitions)
        ]

    @property
    def owned(self) -> frozenset[int]:
        """The partitions whose locks this process holds."""
        return frozenset(holder.partition for holder in self._holders if holder.owns)

    async def run(self) -> None:
        """Follow the living instances until `stopping` is set; then give everything back."""
        async with BackgroundTasks() as background:
            for holder in self._holders:
                background.keep(holder.run(), f"lock of partition {holder.partition}")
            background.keep(self._reach())
            following = background.keep(self._follow())
            self.started.set()
            await self.stopping.wait()
            following.cancel()
            self._want(frozenset())
            for holder in self._holders:
                await holder.idle.wait()

    async def _follow(self) -> None:
        async for instances in self.live:
            self._living = instances
            shares = assign_partitions(len(self._holders), instances)
            self._want({partition for partition, owner in shares.items() if owner == self.instance})

    def _report_reach(self, reachable: bool) -> None:
        """Report to peers whether Postgres answers."""
        if reachable:
            self._unreachable.clear()
        else:
            self._unreachable.set()
        self.on_reach(reachable)

    async def _reach(self) -> None:
        """Probe Postgres while it does not answer: peers hold this instance's share until it does."""

        async def probe() -> None:
            await hang_up(await self.database.connect(seconds=ANSWER_SECONDS))

        while True:
            await self._unreachable.wait()
            await retry(probe, _AWAY, Backoff(RECONNECT_SECONDS))
            self._report_reach(True)

    def _want(self, wanted: Collection[int]) -> None:
        for holder in self._holders:
            holder.want(holder.partition in wanted)


@dataclass(frozen=True, slots=True)
class PeerSessions:
    """The scheduler instances that share the partitions, as sessions of Postgres name them."""

    application: str
    own: str
    living: Callable[[], Collection[str]]
    """Returns the ids of the live instances."""

    @property
    def name(self) -> str:
        """The application name of our own sessions that hold locks."""
        return f"{self.application}/{self.own}"[:63]

    def to_end(self, application: str, waited: float) -> bool:
        """Return whether to end the session of this name, after waiting `waited` seconds for its lock.

        A session of another kind (a rebuild, say) is never ended.
        """
        program, slash, _ = application.rpartition("/")
        if not slash or program != self.application:
            return False
        known = {f"{self.application}/{one}"[:63] for one in self.living()}
        return application not in known or waited >= GIVE_BACK_SECONDS


@dataclass(slots=True)
class _Holder:
    """The owner of one partition, while it is wanted and its connection lives."""

    _database: Database
    partition: int
    _key: int
    _on_acquired: Callback
    _on_lost: Callback
    _peers: PeerSessions
    _report_reach: Callable[[bool], None]
    owns: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the partition is not wanted and its worker and connection are gone."""
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    _logged: str = ""
    """Why the partition could not be owned, as logged last."""

    def __post_init__(self) -> None:
        self._unwanted.set()
        self.idle.set()

    def want(self, wanted: bool) -> None:
        """Set whether this process wants the partition."""
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
            except _AWAY as error:
                why = str(error)
                if why != self._logged:  # once for each reason: the next attempt follows at once
                    self._logged = why
                    place = {"partition": self.partition, "error": why}
                    log.warning("a partition cannot be owned now", action="lock_failed", **place)
                await wait_for_event(self._unwanted, RECONNECT_SECONDS)

    async def _hold(self) -> None:
        """Wait for the lock, then keep it until the partition is no longer wanted or the connection is lost."""
        try:
            connection = await self._database.connect(
                watchful=True, application=self._peers.name, seconds=ANSWER_SECONDS
            )
        except InternalError:
            self._report_reach(False)
            raise
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        stopped: asyncio.Future[None] | None = None
        try:
            if await self._locked(connection):
                stopped = await self._owned(connection, lost)
        finally:
            await hang_up(connection)
            if stopped is not None:
                await stopped

    async def _locked(self, connection: asyncpg.Connection[asyncpg.Record]) -> bool:
        """Wait for the lock; return False when the partition is no longer wanted."""
        unwanted = asyncio.ensure_future(self._unwanted.wait())
        asking = asyncio.ensure_future(self._ask(connection))
        try:
            await asyncio.wait({asking, unwanted}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                asking.result()
                return True
            return False
        finally:
            unwanted.cancel()
            if not asking.done():
                asking.cancel()
                connection.terminate()
                await asyncio.wait({asking})

    async def _ask(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Ask for the lock until it is granted; end the session of a holder that hangs."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await connection.execute(f"SET lock_timeout = {LOCK_SECONDS * 1000:.0f}")
        while True:
            try:
                async with asyncio.timeout(LOCK_SECONDS + ANSWER_SECONDS):
                    await connection.execute("SELECT pg_advisory_lock($1)", self._key)
            except asyncpg.LockNotAvailableError:
                await self._end_holder(connection, loop.time() - begun)
            except TimeoutError:
                self._report_reach(False)
                raise
            else:
                return

    async def _end_holder(self, connection: asyncpg.Connection[asyncpg.Record], waited: float) -> None:
        for holder in await connection.fetch(HOLDERS, self._key, timeout=ANSWER_SECONDS):
            if self._peers.to_end(holder["application_name"], waited):
                await connection.execute("SELECT pg_terminate_backend($1)", holder["pid"], timeout=ANSWER_SECONDS)
                log.warning(
                    "the session of a scheduler that does not give a partition back is ended",
                    action="lock_taken",
                    partition=self.partition,
                    holder=holder["application_name"],
                )

    async def _owned(self, connection: asyncpg.Connection[asyncpg.Record], lost: asyncio.Event) -> asyncio.Future[None]:
        """Own the partition until the lock is lost or unwanted; return a future of its worker's stop."""
        self.owns = True
        self._logged = ""
        log.info("partition acquired", action="partition_acquired", partition=self.partition)
        pinging = asyncio.ensure_future(self._ping(connection, lost))
        try:
            await self._on_acquired(self.partition)
            await wait_for_first(lost.wait(), self._unwanted.wait())
        finally:
            pinging.cancel()
            self.owns = False
            log.info("partition released", action="partition_lost", partition=self.partition, lock=lost.is_set())
            stopped = asyncio.ensure_future(self._on_lost(self.partition))
            stopped.add_done_callback(self._note_stop)
            # A worker that does not stop in time must not hold up its successor: it is fenced.
            await asyncio.wait({stopped}, timeout=STOP_SECONDS)
        return stopped

    def _note_stop(self, stopped: asyncio.Future[None]) -> None:
        if not stopped.cancelled() and (error := stopped.exception()) is not None:
            log.warning(
                "the worker of a partition did not stop in order",
                action="worker_stop_failed",
                partition=self.partition,
                errors=chain_lines(error),
            )

    async def _ping(self, connection: asyncpg.Connection[asyncpg.Record], lost: asyncio.Event) -> None:
        """Detect a Postgres that does not answer on a connection that looks alive."""
        try:
            with only_asked_cancellation(f"ping of partition {self.partition}"):
                while not lost.is_set():
                    await wait_for_event(lost, PING_SECONDS)
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await connection.execute("SELECT")
        except TimeoutError:
            self._report_reach(False)
        except Exception as error:  # noqa: BLE001  without pings, the loss of a lock would not be noticed
            log.debug("a ping of Postgres failed", action="ping_failed", partition=self.partition, error=str(error))
        connection.terminate()
        lost.set()


OWN_SECONDS = 30.0
_AGAIN_SECONDS = 2.0
_END_HOLDER = f"SELECT pg_terminate_backend(pid) FROM ({HOLDERS}) AS holders WHERE pid <> $2"  # noqa: S608


@asynccontextmanager
async def own_all_partitions(database: Database, namespace: str, service: str, partitions: int) -> AsyncIterator[None]:
    """Own all partitions while the block lasts. Raises InternalError when a holder does not let go in time."""
    keys = [partition_lock_key(database.schema, namespace, service, partition) for partition in range(partitions)]
    owner, other = await database.connect(watchful=True), await database.connect()
    try:
        async with asyncio.timeout(OWN_SECONDS):
            await _own(owner, other, keys)
        yield
    except TimeoutError as error:
        raise InternalError(
            f"the workers did not release the partitions within {OWN_SECONDS:.0f} seconds",
            code="partitionsNotOwned",
            hint="`runstream doctor` shows whether Postgres and the schedulers are well",
        ) from error
    finally:
        await hang_up(owner)
        await hang_up(other)


async def _own(owner: Connection, other: Connection, keys: Sequence[int]) -> None:
    owner_pid = owner.get_server_pid()
    for key in keys:
        waiting = asyncio.ensure_future(owner.execute("SELECT pg_advisory_lock($1)", key))
        try:
            while not waiting.done():
                ended = await other.fetch(_END_HOLDER, key, owner_pid)
                if ended:
                    log.info("a worker is asked to restart", action="worker_ended", sessions=len(ended))
                await asyncio.wait({waiting}, timeout=_AGAIN_SECONDS)
            waiting.result()
        finally:
            waiting.cancel()
