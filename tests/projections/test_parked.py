from __future__ import annotations

import asyncio

from runstream.commits import Position
from runstream.database.freshness import channel_of, retry_channel_of
from runstream.projections.fold import Changes
from runstream.projections.parked import list_parked, request_retry
from runstream.projections.store import ProjectionStore, load_partition

from .playing import migrated


async def test_what_is_parked_is_listed_until_it_is_applied(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        store = ProjectionStore(database)
        for partition in (0, 1):
            fold = await load_partition(database, partition, 1)
            fold.park(3, "n.runs.1.0.run.x", "run/x", "cannot be read: \0")
            fold.park(4, "n.runs.1.0.run.y", "run/y", "is at version 0")
            await store.apply(fold.take_changes())

        async with database.snapshot() as transaction:
            listed = await list_parked(transaction)
            assert [one.position for one in listed] == [Position(1, p, s) for p in (0, 1) for s in (3, 4)]
            assert (listed[0].aggregate, listed[0].reason) == ("run/x", "cannot be read: \ufffd")
            assert await list_parked(transaction, 1) == listed[2:]
            assert await list_parked(transaction, 0, 2) == ()

        await store.apply(Changes(0, 1, 4, 4), unparked=(3,))
        async with database.snapshot() as transaction:
            assert [one.aggregate for one in await list_parked(transaction, 0, 1)] == ["run/y"]


async def test_a_retry_is_told_to_the_owners(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        store = ProjectionStore(database)
        for partition in (0, 1):
            fold = await load_partition(database, partition, 1)
            fold.park(3, "subject", "run/x", "why")
            await store.apply(fold.take_changes())
        told: asyncio.Queue[object] = asyncio.Queue()
        connection = await database.connect(watchful=True)
        await connection.add_listener(retry_channel_of(database_schema), lambda *heard: told.put_nowait(heard[3]))

        assert await request_retry(database, [Position(1, 1, 3), Position(1, 2, 3)]) == 1
        assert await told.get() == "1"
        assert await request_retry(database) == 2
        assert [await told.get(), await told.get()] == ["0", "1"]
        await connection.close()


def test_channels_fit_into_a_name() -> None:
    names = {channel_of("a" * 63), channel_of("b" * 63), retry_channel_of("a" * 63), channel_of("a")}
    assert len(names) == 4
    assert max(map(len, names)) <= 63
