from __future__ import annotations

import asyncio
from functools import partial

import pytest
from sqlalchemy import text

from runstream.database import Database, Transaction
from runstream.database.connection import connect, plain_url, quoted
from runstream.database.failures import UnstorableError
from runstream.database.transaction import WriterTransaction
from runstream.errors import BadRequestError, InternalError, RunstreamError

from .playing import migrated

INSERT = text("INSERT INTO counters VALUES (0, :root, 1)")
UPDATE = text("UPDATE counters SET last = last + 1 WHERE root = :root")
READ = text("SELECT root, last FROM counters ORDER BY root")


async def test_what_the_work_returns_is_committed_and_returned(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        assert await database.transaction(partial(_insert, root="a")) == 1
        async with database.snapshot() as transaction:
            assert [dict(row) for row in await transaction.rows(READ)] == [{"root": "a", "last": 1}]
            assert 0 < transaction.remaining <= 10


async def test_work_that_fails_leaves_nothing(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:

        async def work(transaction: Transaction) -> None:
            await transaction.execute(INSERT, {"root": "a"})
            raise TimeoutError("of something else")

        with pytest.raises(TimeoutError, match="of something else"):
            await database.transaction(work)
        async with database.snapshot() as transaction:
            assert await transaction.first(READ) is None


async def test_a_deadlocked_transaction_is_retried(database_url: str, database_schema: str) -> None:
    """Two transactions that take two rows in opposite orders: both come through."""
    async with migrated(database_url, database_schema) as database:
        for root in "ab":
            await database.transaction(partial(_insert, root=root))
        both = asyncio.Barrier(2)
        attempts = []

        async def crossing(first: str, second: str) -> None:
            async def work(transaction: Transaction) -> None:
                attempts.append(first)
                await transaction.execute(UPDATE, {"root": first})
                if attempts.count(first) == 1:
                    await both.wait()
                await transaction.execute(UPDATE, {"root": second})

            await database.transaction(work)

        await asyncio.gather(crossing("a", "b"), crossing("b", "a"))
        assert len(attempts) == 3
        async with database.snapshot() as transaction:
            assert [row["last"] for row in await transaction.rows(READ)] == [3, 3]


async def _insert(transaction: Transaction, root: str) -> int:
    return await transaction.execute(INSERT, {"root": root})


async def test_contention_is_given_up_after_some_attempts(database_url: str, database_schema: str) -> None:
    attempts = 0

    async def work(transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await transaction.rows(text("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$"))

    async with migrated(database_url, database_schema) as database:
        with pytest.raises(InternalError) as raised:
            await database.transaction(work)
    assert (raised.value.code, attempts) == ("databaseContended", 6)


async def test_a_reader_sees_one_state_and_writes_nothing(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        async with database.snapshot() as transaction:
            assert await transaction.first(READ) is None
            await database.transaction(partial(_insert, root="a"))
            assert await transaction.first(READ) is None
        with pytest.raises(InternalError, match="read-only") as raised:
            async with database.snapshot() as transaction:
                await transaction.execute(INSERT, {"root": "b"})
        assert raised.value.code == "databaseRefused"


async def test_the_deadline_ends_a_statement(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        with pytest.raises(InternalError) as raised:
            async with database.snapshot(timeout=0.2) as transaction:
                await transaction.rows(text("SELECT pg_sleep(100)"))
        assert raised.value.code == "databaseTimeout"
        async with database.snapshot() as transaction:
            assert await transaction.rows(READ) == []


async def test_the_pool_outlives_the_servers_connections(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        async with database.snapshot() as one, database.snapshot() as two:
            drivers = [await one.driver(), await two.driver()]
        closed = [asyncio.Event() for _ in drivers]
        killer = await connect(database_url, database_schema)
        for driver, event in zip(drivers, closed, strict=True):
            driver.add_termination_listener(lambda _, event=event: event.set())
            await killer.execute("SELECT pg_terminate_backend($1)", driver.get_server_pid())
            await event.wait()
        await killer.close()
        async with database.snapshot() as transaction:
            assert await transaction.rows(READ) == []


async def test_a_connection_lost_in_the_middle_is_a_clear_error(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        with pytest.raises(InternalError) as raised:
            async with database.snapshot() as transaction:
                await transaction.rows(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert raised.value.code == "databaseDisconnected"
        assert raised.value.hint


async def test_missing_tables_are_a_clear_error(database_url: str, database_schema: str) -> None:
    database = Database(database_url, database_schema)
    with pytest.raises(InternalError) as raised:
        async with database.snapshot() as transaction:
            await transaction.rows(READ)
    assert raised.value.code == "databaseNotMigrated"
    await database.close()


async def test_a_failed_connection_has_its_reason(database_url: str) -> None:
    base, _, _ = database_url.rpartition("/")
    place = base.rpartition("@")[2]
    for url, code in (
        (f"{base}/nowhere", "databaseMissing"),
        (f"postgresql://runstream:wrong@{place}/postgres", "databaseCredentialsRefused"),
        ("postgresql://127.0.0.1:1/x", "databaseUnreachable"),
    ):
        with pytest.raises(InternalError) as raised:
            await connect(url, "x")
        assert raised.value.code == code
        assert "wrong" not in str(raised.value)
    with pytest.raises(BadRequestError):
        await connect("postgresql://127.0.0.1:nonsense/x", "x")


@pytest.mark.parametrize("url", ["mysql://x", "127.0.0.1", ""])
def test_a_url_of_something_else_is_refused(url: str) -> None:
    with pytest.raises(RunstreamError) as raised:
        plain_url(url)
    assert raised.value.code == "invalidDatabaseURL"


def test_names_of_schemas() -> None:
    assert quoted('a"b') == '"a""b"'
    for name in ("", "a\0", "é" * 32):
        with pytest.raises(BadRequestError):
            quoted(name)


async def test_a_writer_keeps_its_connection_until_something_fails(database_url: str, database_schema: str) -> None:
    async def insert(writing: WriterTransaction) -> int:
        await writing.connection.execute("INSERT INTO counters VALUES (0, 'a', 1)")
        return writing.connection.get_server_pid()

    async def read(writing: WriterTransaction) -> tuple[int, int]:
        found = await writing.connection.fetchval("SELECT count(*) FROM counters")
        return found, writing.connection.get_server_pid()

    async with migrated(database_url, database_schema) as database:
        _, first = await database.write(read)
        inserted = await database.write(insert)
        with pytest.raises(UnstorableError, match="duplicate key"):
            await database.write(insert)
        count, last = await database.write(read)
        assert (first, inserted, count) == (inserted, first, 1)
        assert last != first


async def test_a_writer_whose_connection_was_closed_gets_another(database_url: str, database_schema: str) -> None:
    closed = asyncio.Event()

    async def watch(writing: WriterTransaction) -> int:
        writing.connection.add_termination_listener(lambda _: closed.set())
        return writing.connection.get_server_pid()

    async with migrated(database_url, database_schema) as database:
        killer = await connect(database_url, database_schema)
        pid = await database.write(watch)
        await killer.execute("SELECT pg_terminate_backend($1)", pid)
        await killer.close()
        await closed.wait()
        assert await database.write(watch) != pid


async def test_a_writer_is_bounded_too(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        with pytest.raises(InternalError) as raised:
            await database.write(lambda writing: writing.connection.execute("SELECT pg_sleep(100)"), timeout=0.2)
        assert raised.value.code == "databaseTimeout"
