"""`runstream rebuild` is killed by -9 at random moments, while the scheduler works and people read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text

from runstream.commits import Position
from runstream.database import Database
from runstream.database.run_lists import RunQuery, list_runs
from runstream.importing.epochs import ServicePlace, remove_killed
from runstream.projections.fsck import fsck
from runstream.projections.rebuild import rebuild
from runstream.projections.rebuild_schema import EXCHANGED
from tests.chaos.kills import Chaos, Victim, kills, say
from tests.domain.world import config, task
from tests.projections.test_rebuild import schemas, silent
from tests.scheduler.standing import FakeExecutor, Standing, running, standing
from tests.servers import Servers

BEFORE = 30
"""Number of runs finished before the first kill; their rows may not change any more."""
RUNS = 12
"""Number of runs created during each killed rebuild."""
ORDINARILY = 6


@dataclass
class Reader:
    """A user who reads all the time: every table is there, and finished runs never change."""

    database: Database
    runs: list[str]
    reads: int = 0
    tables: set[tuple[int, ...]] = field(default_factory=set)
    """The tables there ever were, each time all of them together."""

    first: object = None

    async def read(self) -> None:
        found = await self._read()
        self.first = self.first or found
        assert found == self.first
        self.reads += 1
        of_one_kind = list(zip(*self.tables, strict=True))
        assert all(len(set(kind)) == len(kind) for kind in of_one_kind), "old and new tables beside each other"

    async def _read(self) -> object:
        async with self.database.snapshot() as transaction:
            page = await list_runs(transaction, RunQuery(limit=5))
            assert len(page.runs) == 5
            statement = (
                "SELECT (SELECT md5(string_agg(r::text, '' ORDER BY r.id)) FROM runs r WHERE r.id = ANY(:runs)),"
                " (SELECT md5(string_agg(t::text, '' ORDER BY t.id)) FROM run_tasks t WHERE t.run_id = ANY(:runs)),"
                " (SELECT md5(string_agg(e::text, '' ORDER BY e.id)) FROM executor_tasks e WHERE e.run_id = ANY(:runs))"
            )
            (rows,) = await transaction.rows(text(statement), {"runs": self.runs})
            oids = ", ".join(f"'{table}'::regclass::oid::bigint" for table in EXCHANGED)
            (tables,) = await transaction.rows(text(f"SELECT {oids}"))
            self.tables.add(tuple(int(one) for one in tables.values()))
            return tuple(rows.values())


@dataclass
class Work:
    """A scheduler, an executor, new runs, and a reader, all at work."""

    around: Standing
    reader: Reader
    runs: list[str]

    async def more(self, count: int) -> None:
        """Create runs, each when the one before is seen in the rows, and read."""
        content = config(task("a"), task("b"))
        for number in range(count):
            self.runs.append(await self.around.create(content, f"/project/p{number % 5}/branch/main"))
            await self.projected()
            await self.reader.read()

    async def projected(self) -> None:
        """Wait until the rows have what the log has now."""
        ends = [await self.around.log.end(partition) for partition in range(self.around.log.partitions)]
        await self.around.freshness.wait_for(*(Position(1, *at) for at in enumerate(ends)), timeout=20)

    async def differences(self) -> list[str]:
        """What `fsck` finds."""
        return (await fsck(self.around.database, self.around.log)).lines()[:-1]


@asynccontextmanager
async def working(around: Standing) -> AsyncIterator[Work]:
    """Runs have ended, and more can be created; at the end all of them have ended."""
    content = config(task("a"), task("b"))
    async with running(around.freshness), running(await around.scheduler()), FakeExecutor(around, "e1").alive():
        runs = [await around.create(content, f"/project/p{n % 5}/branch/main") for n in range(BEFORE)]
        await around.ended(*runs)
        work = Work(around, Reader(around.database, list(runs)), runs)
        await work.projected()
        yield work
        await around.ended(*runs)
        await work.projected()


async def own_schemas(around: Standing) -> set[str]:
    """This test's schema and what was made beside it; other tests share the server."""
    return {name for name in await schemas(around.database) if around.database.schema in name}


@pytest.mark.chaos
@pytest.mark.seconds(60 + 12 * kills(ORDINARILY))
async def test_a_killed_rebuild_leaves_the_rows_whole(servers: Servers) -> None:
    chaos = Chaos(21, ORDINARILY)
    names = ("--namespace", servers.namespace, "--database-schema", servers.schema)
    words = ("rebuild", "--nats-url", servers.nats_url, "--database-url", servers.database_url, *names)
    victims = [Victim(chaos, words, shared_out=shared_out) for shared_out in (False, True)]
    async with standing(servers) as around, working(around) as work:
        place = ServicePlace(around.nats, servers.nats_url, around.database, servers.namespace, "runs", 1)
        before = await own_schemas(around)
        for victim in victims:
            await victim.measure()
        await work.reader.read()
        tables = len(work.reader.tables)
        halves = 0
        for number in chaos:
            # The one moment at which a schema was made, and nothing said whose it is.
            begin = "execute COMMENT ON SCHEMA" if number == 0 else ""
            killing = asyncio.create_task(victims[number % 2].killed(before=begin))
            await work.more(RUNS)
            moment = await killing
            say(moment)
            await work.reader.read()
            assert await work.differences() == [], moment
            halves += before != await own_schemas(around)
            if chaos.random.random() < 0.5:
                await remove_killed(place)  # as a process does that starts
                assert before == await own_schemas(around), moment
            await rebuild(servers.nats_url, around.log, around.database, silent)
            await work.reader.read()
            assert before == await own_schemas(around), moment
            assert await work.differences() == [], moment
        swapped = len(work.reader.tables) - tables - chaos.kills
        say(f"{halves} left a half schema, {swapped} had swapped; {work.reader.reads} reads, {len(work.runs)} runs")
