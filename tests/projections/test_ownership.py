from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from runstream.database import Database
from runstream.database.connection import partition_lock_key
from runstream.projections import ownership
from runstream.projections.ownership import GIVE_BACK_SECONDS, PartitionOwnership, PeerSessions, assign_partitions
from tests.links import link

from .playing import migrated


class Instance:
    """A scheduler process: what it owns, and who it believes to be alive."""

    def __init__(
        self, url: str, schema: str, namespace: str, name: str, partitions: int = 4, application: str = ""
    ) -> None:
        self.name = name
        self.seen: asyncio.Queue[Collection[str]] = asyncio.Queue()
        self.working: set[int] = set()
        self.losses = 0
        self.changed = asyncio.Condition()
        self.stops = asyncio.Event()
        """Workers stop as soon as this is set."""
        self.stops.set()
        self.reach: asyncio.Queue[bool] = asyncio.Queue()
        self.database = Database(url, schema, application=application or f"{namespace} {name}")
        self.ownership = PartitionOwnership(
            self.database,
            namespace=namespace,
            service="runs",
            partitions=partitions,
            instance=name,
            live=self._live(),
            on_acquired=self._acquired,
            on_lost=self._lost,
            on_reach=self.reach.put_nowait,
        )

    async def _live(self) -> AsyncIterator[Collection[str]]:
        while True:
            yield await self.seen.get()

    async def _acquired(self, partition: int) -> None:
        async with self.changed:
            assert partition not in self.working
            self.working.add(partition)
            self.changed.notify_all()

    async def _lost(self, partition: int) -> None:
        await self.stops.wait()
        async with self.changed:
            self.working.remove(partition)
            self.losses += 1
            self.changed.notify_all()

    def sees(self, *names: str) -> None:
        self.seen.put_nowait(names)

    async def works_on(self, count: int, losses: int = 0) -> set[int]:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.working) == count and self.losses >= losses)
            return set(self.working)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances that wait for Postgres, and for workers, a tenth as long."""
    for name in ("LOCK_SECONDS", "ANSWER_SECONDS", "PING_SECONDS", "STOP_SECONDS"):
        monkeypatch.setattr(ownership, name, getattr(ownership, name) / 10)


@asynccontextmanager
async def running(*instances: Instance) -> AsyncIterator[None]:
    for instance in instances:
        await instance.ownership.start()
    try:
        yield
    finally:
        for instance in instances:
            await instance.ownership.stop()
            await instance.database.close()
            assert not instance.working


async def test_the_only_instance_owns_everything_and_gives_it_back(
    database_url: str, database_schema: str, namespace: str
) -> None:
    a, b = (Instance(database_url, database_schema, namespace, name) for name in "ab")
    async with running(a):
        a.sees("a")
        assert await a.works_on(4) == a.ownership.owned
    async with running(b):
        b.sees("b")
        await b.works_on(4)


async def test_a_second_instance_gets_its_share(database_url: str, database_schema: str, namespace: str) -> None:
    a, b = (Instance(database_url, database_schema, namespace, name) for name in "ab")
    async with running(a, b):
        a.sees("a")
        await a.works_on(4)
        b.sees("a", "b")
        a.sees("a", "b")
        theirs, ours = await b.works_on(2), await a.works_on(2)
        assert theirs | ours == {0, 1, 2, 3}

        a.sees("b")
        b.sees("b")
        await b.works_on(4)


async def test_an_instance_without_known_peers_waits_for_the_lock(
    database_url: str, database_schema: str, namespace: str
) -> None:
    """Views of who is alive may differ for a moment; the lock decides."""
    a, b = (Instance(database_url, database_schema, namespace, name) for name in "ab")
    async with running(a, b):
        a.sees("a")
        await a.works_on(4)
        b.sees("b")
        await _locks_waited_for(b, 4)
        assert not b.working
        a.sees("a", "b")
        taken = await b.works_on(2)
        assert taken.isdisjoint(await a.works_on(2))


async def test_a_lost_connection_is_lost_ownership_at_once(
    database_url: str, database_schema: str, namespace: str
) -> None:
    a, b = (Instance(database_url, database_schema, namespace, name, partitions=1) for name in "ab")
    async with running(a, b), migrated(database_url, database_schema) as database:
        a.sees("a")
        await a.works_on(1)
        b.sees("b")
        await _locks_waited_for(b, 1)
        await _kill_backends(database, f"{namespace} a")

        await b.works_on(1)
        await a.works_on(0, losses=1)
        await _locks_waited_for(a, 1)
        await _kill_backends(database, f"{namespace} b")
        await a.works_on(1)


async def test_a_killed_waiter_waits_again(database_url: str, database_schema: str, namespace: str) -> None:
    a, b = (Instance(database_url, database_schema, namespace, name, partitions=1) for name in "ab")
    async with running(a, b), migrated(database_url, database_schema) as database:
        a.sees("a")
        await a.works_on(1)
        b.sees("b")
        await _locks_waited_for(b, 1)
        await _kill_backends(database, f"{namespace} b")
        a.sees("b")
        await b.works_on(1)


async def test_a_waiter_that_is_no_longer_wanted_lets_go(
    database_url: str, database_schema: str, namespace: str
) -> None:
    a, b = (Instance(database_url, database_schema, namespace, name, partitions=1) for name in "ab")
    async with running(a):
        a.sees("a")
        await a.works_on(1)
        async with running(b):
            b.sees("b")
            await _locks_waited_for(b, 1)
            b.sees("a")
        assert a.working == {0}


@pytest.mark.parametrize("lives", [False, True])
async def test_the_session_of_a_hung_instance_is_terminated(
    database_url: str, database_schema: str, namespace: str, lives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process keeps its connection, and so its lock, for as long as it is stopped.

    One that still renews its presence has some seconds to give the lock back.
    """
    monkeypatch.setattr(ownership, "GIVE_BACK_SECONDS", 1.5 if lives else 3600.0)
    key = partition_lock_key(database_schema, namespace, "runs", 0)
    program = (
        "import asyncio, asyncpg, sys\n"
        "async def main():\n"
        "    c = await asyncpg.connect(sys.argv[1], server_settings={'application_name': sys.argv[2]})\n"
        "    await c.execute('SELECT pg_advisory_lock($1)', int(sys.argv[3]))\n"
        "    print('held', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    b = Instance(database_url, database_schema, namespace, "b", 1, namespace)
    arguments = ("-c", program, database_url, f"{namespace}/hangs", str(key))
    hung = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert hung.stdout is not None
        assert await hung.stdout.readline() == b"held\n"
        hung.send_signal(signal.SIGSTOP)
        async with running(b):
            b.sees("b", "hangs")
            await _locks_waited_for(b, 1)
            if not lives:
                b.sees("b")
            await b.works_on(1)
    finally:
        hung.kill()
        await hung.wait()


@pytest.mark.parametrize(
    ("holder", "waited", "ended"),
    [
        ("runstream/dead", 1.0, True),
        ("runstream/slow", 1.0, False),
        ("runstream/slow", GIVE_BACK_SECONDS, True),
        ("runstream rebuild", 600.0, False),
        ("psql", 600.0, False),
        ("", 600.0, False),
    ],
)
def test_only_the_sessions_of_schedulers_that_are_gone_or_do_not_give_back_are_ended(
    holder: str, waited: float, ended: bool
) -> None:
    assert PeerSessions("runstream", "own", lambda: {"own", "slow"}).to_end(holder, waited) is ended


@pytest.mark.usefixtures("impatient")
async def test_an_instance_that_postgres_does_not_answer_gives_up_and_says_so(
    database_url: str, database_schema: str, namespace: str
) -> None:
    async with link(database_url) as cable:
        a = Instance(cable.url, database_schema, namespace, "a", 1, namespace)
        b = Instance(database_url, database_schema, namespace, "b", 1, namespace)
        async with running(a, b):
            a.sees("a")
            await a.works_on(1)
            cable.cut()
            assert await a.reach.get() is False
            await a.works_on(0)
            a.sees("b")
            b.sees("b")
            await b.works_on(1)
            cable.mend()
            assert await a.reach.get() is True


@pytest.mark.usefixtures("impatient")
async def test_an_instance_that_postgres_does_not_answer_at_its_start_says_so(
    database_url: str, database_schema: str, namespace: str
) -> None:
    async with link(database_url) as cable:
        cable.cut()
        a = Instance(cable.url, database_schema, namespace, "a", 1, namespace)
        async with running(a):
            a.sees("a")
            assert await a.reach.get() is False
            cable.mend()
            await a.works_on(1)


@pytest.mark.usefixtures("impatient")
async def test_an_instance_that_is_not_answered_while_it_waits_for_a_lock_says_so(
    database_url: str, database_schema: str, namespace: str
) -> None:
    async with link(database_url) as cable:
        a = Instance(cable.url, database_schema, namespace, "a", 1, namespace)
        b = Instance(database_url, database_schema, namespace, "b", 1, f"{namespace} of another kind")
        async with running(a, b):
            b.sees("b")
            await b.works_on(1)
            a.sees("a")
            await _locks_waited_for(a, 1)
            cable.cut()
            assert await a.reach.get() is False
            cable.mend()
            assert await a.reach.get() is True
            b.sees("a")
            await a.works_on(1)


@pytest.mark.usefixtures("impatient")
async def test_a_worker_that_does_not_stop_holds_up_no_successor(
    database_url: str, database_schema: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "GIVE_BACK_SECONDS", 3600.0)  # the successor ends no session
    (name,) = assign_partitions(1, ("a", "b")).values()
    successor = Instance(database_url, database_schema, namespace, name, 1, namespace)
    stuck = Instance(database_url, database_schema, namespace, "ab".replace(name, ""), 1, namespace)
    async with running(stuck, successor):
        stuck.sees(stuck.name)
        await stuck.works_on(1)
        stuck.stops.clear()
        for instance in (stuck, successor):
            instance.sees("a", "b")
        await successor.works_on(1)
        assert stuck.working == {0}
        stuck.stops.set()
        await stuck.works_on(0)


async def _locks_waited_for(instance: Instance, count: int) -> None:
    waiting = text(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name LIKE :name AND wait_event = 'advisory'"
    )
    while True:
        async with instance.database.snapshot() as transaction:
            row = await transaction.first(waiting, {"name": f"{instance.database.application}/%"})
        if row is not None and row["n"] == count:
            return


async def _kill_backends(database: Database, application: str) -> None:
    killing = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE :name")
    async with database.snapshot() as transaction:
        assert await transaction.rows(killing, {"name": f"{application}/%"})
