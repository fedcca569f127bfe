"""A rebuild fills a second projection while the live one serves, and then replaces it in one step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from benchmarks.generate import append
from sqlalchemy import text

from runstream.commits import LogPosition, Position
from runstream.database import Database
from runstream.database.run_lists import RunQuery, list_runs
from runstream.errors import BadRequestError, ConflictError
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.projections.fsck import fsck
from runstream.projections.rebuild import rebuild, rebuild_into, rebuild_lock
from runstream.projections.rebuild_schema import drop, schema_beside
from runstream.run_states import RunResult
from tests.domain.world import config, task
from tests.migrated import make_tables
from tests.scheduler.standing import FakeExecutor, running, standing
from tests.servers import Servers

RUNS = 60


def silent(_what: str, _done: int, _total: int) -> None:
    return


@asynccontextmanager
async def generated(servers: Servers) -> AsyncIterator[tuple[JetStreamLog, Database]]:
    """A log, and a database without a row."""
    await make_tables(servers.database_url, servers.schema)
    database = Database(servers.database_url, servers.schema)
    async with (
        nats_connection(servers.nats_url) as client,
        await open_log(client, servers.namespace, create=True, partitions=3) as log,
    ):
        await append(servers.nats_url, log, RUNS)
        try:
            yield log, database
        finally:
            await database.close()


async def schemas(database: Database) -> set[str]:
    async with database.snapshot() as transaction:
        return {row["nspname"] for row in await transaction.rows(text("SELECT nspname FROM pg_namespace"))}


async def indexes(database: Database) -> set[str]:
    async with database.snapshot() as transaction:
        asked = text("SELECT indexname FROM pg_indexes WHERE schemaname = :schema")
        return {row["indexname"] for row in await transaction.rows(asked, {"schema": database.schema})}


@pytest.mark.parametrize("processes", [1, 2])
async def test_the_live_projection_is_made_anew(
    processes: int, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    if processes > 1:
        monkeypatch.setattr("runstream.projections.rebuild.MANY", 0)
        monkeypatch.setattr("runstream.projections.rebuild.available_cpus", lambda: processes)
    async with generated(servers) as (log, database):
        before = await indexes(database)
        said: list[tuple[str, int, int]] = []
        done = await rebuild(servers.nats_url, log, database, lambda *what: said.append(what))
        ends = tuple([await log.end(partition) for partition in range(3)])
        assert done.position == LogPosition(1, ends)
        assert ("folding", sum(ends), sum(ends)) in said
        report = await fsck(database, log)
        assert (report.lines()[:-1], report.commits) == ([], sum(ends))
        assert await indexes(database) == before
        assert schema_beside(servers.schema) not in await schemas(database)


async def test_a_rebuild_repairs_rows_changed_by_hand(servers: Servers) -> None:
    async with generated(servers) as (log, database):
        await rebuild(servers.nats_url, log, database, silent)
        for statement in ("DELETE FROM runs WHERE counter = 1", "UPDATE checkpoints SET sequence = 100000, epoch = 7"):
            await database.transaction(lambda transaction, s=statement: transaction.execute(text(s)))  # type: ignore[misc]
        assert not (await fsck(database, log)).clean
        await rebuild(servers.nats_url, log, database, silent)
        assert (await fsck(database, log)).clean


async def test_leftovers_of_an_earlier_attempt_are_replaced(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = schema_beside(servers.schema)
    async with generated(servers) as (log, database):
        half = LogPosition(1, (40, 40, 40))
        assert (await rebuild_into(servers.nats_url, log, servers.database_url, beside, half, silent)).position == half
        monkeypatch.setattr("runstream.projections.rebuild.rebuild_lock", partial(rebuild_lock, seconds=0))
        async with rebuild_lock(database):
            with pytest.raises(ConflictError, match="is running already"):
                await rebuild(servers.nats_url, log, database, silent)
        await rebuild(servers.nats_url, log, database, silent)
        assert (await fsck(database, log)).clean
        assert beside not in await schemas(database)


async def test_the_projection_as_of_a_position_is_made_in_a_schema_of_its_own(servers: Servers) -> None:
    into = f"{servers.schema}_past"
    async with generated(servers) as (log, database):
        await rebuild_into(servers.nats_url, log, servers.database_url, into, LogPosition(1, (30, 30, 30)), silent)
        past = Database(servers.database_url, into)
        try:
            report = await fsck(past, log)
            assert (report.lines()[:-1], report.commits) == ([], 90)
            async with past.snapshot() as transaction:
                assert len((await list_runs(transaction, RunQuery(limit=40))).runs) > 0
        finally:
            await past.close()
            await drop(servers.database_url, into)
        with pytest.raises(ConflictError) as caught:
            await rebuild_into(
                servers.nats_url, log, servers.database_url, servers.schema, LogPosition(1, (1, 1, 1)), silent
            )
        assert "no rebuild created it" in caught.value.message
        assert (await fsck(database, log)).commits == 0


async def test_objects_that_depend_on_the_tables_are_named(servers: Servers) -> None:
    async with generated(servers) as (log, database):
        await database.transaction(lambda one: one.execute(text("CREATE VIEW mine AS SELECT id FROM runs")))
        with pytest.raises(BadRequestError) as caught:
            await rebuild(servers.nats_url, log, database, silent)
        assert "mine" in caught.value.message


async def test_workers_go_on_from_the_new_rows(servers: Servers) -> None:
    """The scheduler runs, runs are created all the time, and the projection is made anew again and again."""
    content = config(task("a"), task("b"))
    async with standing(servers) as around:
        runs: list[str] = []
        rebuilt = asyncio.Event()

        async def create() -> None:
            while not rebuilt.is_set():
                runs.append(await around.create(content, f"/project/p{len(runs) % 5}/branch/main"))
                if len(runs) > 20:
                    await around.ended(runs[-20])

        async with running(await around.scheduler()), FakeExecutor(around, "e1").alive():
            async with asyncio.TaskGroup() as group:
                group.create_task(create())
                for _ in range(3):
                    await rebuild(servers.nats_url, around.log, around.database, silent)
                rebuilt.set()
            runs.append(await around.create(content))
            folds = await around.ended(*runs)
            assert {folds[run].runs[run].state.result for run in runs} == {RunResult.SUCCESS}
            ends = [await around.log.end(partition) for partition in range(around.log.partitions)]
            await around.freshness.start()
            try:
                await around.freshness.wait_for(*(Position(1, *at) for at in enumerate(ends)), timeout=20)
            finally:
                await around.freshness.stop()
        report = await fsck(around.database, around.log)
        assert report.lines()[:-1] == []
        assert report.commits >= sum(ends)
