"""The pool of connections to one schema, and the one place where transactions are begun, bounded and retried."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runstream.database.connection import connect, plain_url, quoted
from runstream.database.failures import RETRYABLE, failure, sqlstate
from runstream.database.transaction import Transaction
from runstream.errors import InternalError

T = TypeVar("T")

DEFAULT_SECONDS = 10.0
ATTEMPTS = 6
FIRST_BACKOFF = 0.01
"""Seconds; doubled for each further attempt, of which a random part is waited."""

_POSTGRES_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)


class Database:
    """One schema of one Postgres. Connections are made when they are needed."""

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
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)
        self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    async def _create(self) -> asyncpg.Connection[asyncpg.Record]:
        return await connect(self.url, self.schema, application=self.application)

    async def connect(self, *, watchful: bool = False) -> asyncpg.Connection[asyncpg.Record]:
        """A connection outside the pool, for locks and notifications; the caller closes it."""
        return await connect(self.url, self.schema, application=self.application, watchful=watchful)

    async def close(self) -> None:
        """Close all connections of the pool."""
        await self._engine.dispose()

    async def transaction(
        self, work: Callable[[Transaction], Awaitable[T]], *, timeout: float = DEFAULT_SECONDS, relaxed: bool = False
    ) -> T:
        """Do the work in a transaction and commit; what the work returns is returned.

        On a serialization failure or a deadlock everything is done again, a bounded number of times: the work
        must not have other effects. `relaxed` does not wait for the disk (synchronous_commit off): only for what
        can be made again from the log. Raises InternalError when the database fails or `timeout` (seconds) is over.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        for attempt in range(1, ATTEMPTS):
            try:
                async with self._begun(self._engine, deadline, relaxed=relaxed) as transaction:
                    return await work(transaction)
            except InternalError as error:
                if error.code != "databaseContended":
                    raise
            await asyncio.sleep(random.uniform(0, FIRST_BACKOFF * 2**attempt))  # noqa: S311  # jitter, not a secret
        async with self._begun(self._engine, deadline, relaxed=relaxed) as transaction:
            return await work(transaction)

    @asynccontextmanager
    async def snapshot(self, *, timeout: float = DEFAULT_SECONDS) -> AsyncIterator[Transaction]:
        """A transaction that only reads, and sees one state of the database from its first to its last statement."""
        deadline = asyncio.get_running_loop().time() + timeout
        async with self._begun(self._reading, deadline) as transaction:
            yield transaction

    @asynccontextmanager
    async def _begun(
        self, engine: AsyncEngine, deadline: float, *, relaxed: bool = False
    ) -> AsyncIterator[Transaction]:
        bound = asyncio.timeout_at(deadline)
        try:
            async with bound, engine.begin() as connection:
                transaction = Transaction(connection, deadline)
                await transaction.begin(relaxed=relaxed)
                yield transaction
        except _POSTGRES_ERRORS as error:
            raise _translated(error) from error
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise _translated(error) from error


def _refuse_closed(connection: DBAPIConnection, record: object, proxy: object) -> None:
    """Have the pool make a new connection in the place of one that the server has closed meanwhile."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _translated(error: BaseException) -> BaseException:
    if sqlstate(error) in RETRYABLE:
        return InternalError(
            "concurrent transactions kept each other from finishing",
            code="databaseContended",
            hint="try again",
        )
    return failure(error) or error
