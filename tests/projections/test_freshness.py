from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from runstream.commits import Position
from runstream.database import Database
from runstream.database.freshness import Freshness, channel_of
from runstream.errors import InternalError
from runstream.projections.fold import Changes
from runstream.projections.store import ProjectionStore, load_partition

from .playing import migrated


@asynccontextmanager
async def listening(database: Database) -> AsyncIterator[Freshness]:
    freshness = Freshness(database)
    await freshness.start()
    try:
        yield freshness
    finally:
        await freshness.stop()


async def test_a_reader_waits_until_its_write_is_projected(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database, listening(database) as freshness:
        store = ProjectionStore(database)
        await load_partition(database, 0, 1)
        await load_partition(database, 1, 1)
        both = asyncio.create_task(freshness.wait_for(Position(1, 0, 5), Position(1, 1, 2), timeout=30))
        await store.apply(Changes(0, 1, 0, 4))
        await freshness.wait_for(Position(1, 0, 4), timeout=30)
        assert not both.done()
        await store.apply(Changes(0, 1, 4, 7))
        await store.apply(Changes(1, 1, 0, 2))
        await both


async def test_what_was_projected_before_needs_no_announcement(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        await load_partition(database, 0, 2)
        await ProjectionStore(database).apply(Changes(0, 2, 0, 4))
        async with listening(database) as freshness:
            await freshness.wait_for(Position(2, 0, 4), Position(1, 0, 99), timeout=0)


async def test_waiting_ends_with_a_clear_error(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database, listening(database) as freshness:
        with pytest.raises(
            InternalError, match=r"has not reached position 1:9 of partition 3 within 0\.01 s"
        ) as raised:
            await freshness.wait_for(Position(1, 3, 9), timeout=0.01)
        assert raised.value.code == "projectionBehind"


async def test_a_lost_connection_misses_nothing(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database, listening(database) as freshness:
        await load_partition(database, 0, 1)
        waiting = asyncio.create_task(freshness.wait_for(Position(1, 0, 7), timeout=30))
        async with database.snapshot() as transaction:
            ended = await transaction.rows(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query ^@ 'LISTEN' AND strpos(query, :channel) > 0"
                ),
                {"channel": channel_of(database_schema)},
            )
        assert len(ended) == 1
        await ProjectionStore(database).apply(Changes(0, 1, 0, 7))
        await waiting


async def test_it_does_not_start_without_a_database(database_schema: str) -> None:
    database = Database("postgresql://127.0.0.1:1/x", database_schema)
    with pytest.raises(InternalError) as raised:
        await Freshness(database).start()
    assert raised.value.code == "databaseUnreachable"
    await database.close()
