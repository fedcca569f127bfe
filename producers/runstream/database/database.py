"""The pool of connections to one schema, where every transaction begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self, TypeVar

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runstream.database.connection import CONNECT_SECONDS, connect, plain_url, quoted
from runstream.database.failures import bounded, retried
from runstream.database.transaction import Transaction, Writers, WriterTransaction

T = TypeVar("T")

DEFAULT_SECONDS = 10.0


class Database:
    """One schema of a Postgres database. Opens connections when they are needed."""

    def __init__(self, url: str, schema: str, *, pool_size: int = 8, application: str = "runstream") -> None:
        self.url = plain_url(url)
        self.schema = schema
        self.application = application
        quoted(schema)
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._create,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=DEFAULT_SECONDS,
        )
        self._writers = Writers(self.connect)
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)
        self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    async def _create(self) -> asyncpg.Connection[asyncpg.Record]:
        return await connect(self.url, self.schema, application=self.application)

    async def connect(
        self, *, watchful: bool = False, application: str = "", seconds: float = CONNECT_SECONDS
    ) -> asyncpg.Connection[asyncpg.Record]:
        """Open a connection outside the pool, for locks and notifications; the caller closes it."""
        named = application or self.application
        return await connect(self.url, self.schema, application=named, watchful=watchful, timeout=seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections, of the pool and of writers."""
        await self._writers.close()
        await self._engine.dispose()

    async def transaction(self, work: Callable[[Transaction], Awaitable[T]], *, timeout: float = DEFAULT_SECONDS) -> T:
        """Run `work` in a transaction, commit, and return its result.

        Retries a serialization failure or a deadlock a bounded number of times, so the work must have no other
        effects. Raises InternalError when the database fails or after `timeout` seconds.
        """
        deadline = asyncio.get_running_loop().time() + timeout

        async def attempt() -> T:
            async with self._begun(self._engine, deadline) as transaction:
                return await work(transaction)

        return await retried(attempt)

    async def write(self, work: Callable[[WriterTransaction], Awaitable[T]], *, timeout: float = DEFAULT_SECONDS) -> T:
        """Run `work` like `transaction`, on a writer's connection and with synchronous_commit off.

        Only for rows that can be rebuilt from the log.
        """
        deadline = asyncio.get_running_loop().time() + timeout

        async def attempt() -> T:
            async with self._writers.begun(deadline) as writing:
                return await work(writing)

        return await retried(attempt)

    @asynccontextmanager
    async def snapshot(self, *, timeout: float = DEFAULT_SECONDS) -> AsyncIterator[Transaction]:
        """Open a read-only transaction that sees one state of the database throughout."""
        deadline = asyncio.get_running_loop().time() + timeout
        async with self._begun(self._reading, deadline) as transaction:
            yield transaction

    @asynccontextmanager
    async def _begun(self, engine: AsyncEngine, deadline: float) -> AsyncIterator[Transaction]:
        async with bounded(deadline), engine.begin() as connection:
            transaction = Transaction(connection, deadline)
            await transaction.begin()
            yield transaction


def _refuse_closed(connection: DBAPIConnection, record: object, proxy: object) -> None:
    """Make the pool replace a connection that the server has closed."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError
