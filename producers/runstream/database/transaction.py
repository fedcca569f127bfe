"""Transactions: from the pool, for reading and changing; and on a connection of a writer, for batch after batch.

A writer's transaction has nothing between it and the driver: it costs a quarter of the CPU of one from the pool (146
against 567 µs for a batch of one commit), and an idle or lightly loaded service does little else than project.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy import Connection as SyncConnection
from sqlalchemy import CursorResult, Executable, RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runstream.database.connection import Connection, hang_up
from runstream.database.failures import bounded

T = TypeVar("T")

_BEGIN = text("SELECT set_config('statement_timeout', :timeout, true)")


class Transaction:
    """An open transaction. It ends when its `async with` (or the function given to `Database.transaction`) ends."""

    def __init__(self, connection: AsyncConnection, deadline: float) -> None:
        self._connection = connection
        self.deadline = deadline
        """End of the transaction, on the event loop's clock (seconds)."""

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; never negative."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    async def rows(self, statement: Executable, values: Mapping[str, object] | None = None) -> Sequence[RowMapping]:
        """Return all rows of the statement's result."""
        result = await self._connection.execute(statement, values)
        return result.mappings().all()

    async def tuples(self, statement: Executable) -> Sequence[Sequence[Any]]:
        """Return the values of all rows: the thousands of a large run take a fifth of the time that names would."""
        result: CursorResult[Any] = await self._connection.execute(statement)
        return result.all()

    async def first(self, statement: Executable, values: Mapping[str, object] | None = None) -> RowMapping | None:
        """Return the first row of the statement's result, or None."""
        result = await self._connection.execute(statement, values)
        return result.mappings().first()

    async def execute(self, statement: Executable, values: Mapping[str, object] | None = None) -> int:
        """Run the statement and return the number of rows that it changed."""
        result = await self._connection.execute(statement, values)
        return result.rowcount

    async def run(self, work: Callable[[SyncConnection], T]) -> T:
        """Run a function of SQLAlchemy's synchronous connection in this transaction."""
        return await self._connection.run_sync(work)

    async def driver(self) -> Connection:
        """Return the driver's connection in this transaction, for prepared statements with arrays, COPY and cursors."""
        raw = await self._connection.get_raw_connection()
        return cast("Connection", raw.driver_connection)

    async def begin(self) -> None:
        """Begin on the server, with a statement timeout at the deadline."""
        milliseconds = max(1, int(self.remaining * 1000))
        await self._connection.execute(_BEGIN, {"timeout": f"{milliseconds}ms"})


IDLE_SECONDS = 5.0
"""Seconds that a transaction may wait for its writer, so that a stalled process releases the checkpoint's row."""
MAX_IDLE = 16
"""Idle connections kept for the next writer."""


@dataclass(frozen=True, slots=True)
class WriterTransaction:
    """An open transaction of rows that can be rebuilt from the log: its commit does not wait for the disk."""

    connection: Connection
    deadline: float
    """End of the transaction, on the event loop's clock (seconds)."""


class Writers:
    """The writer connections of one process."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def begun(self, deadline: float) -> AsyncIterator[WriterTransaction]:
        """Open a transaction; commit it when the block ends, close its connection when the block fails."""
        async with bounded(deadline):
            connection = self._kept() or await self._connect()
            try:
                milliseconds = max(1, int((deadline - asyncio.get_running_loop().time()) * 1000))
                await connection.execute(
                    f"BEGIN; SET LOCAL synchronous_commit = off; SET LOCAL statement_timeout = {milliseconds}; "
                    f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_SECONDS * 1000:.0f}"
                )
                yield WriterTransaction(connection, deadline)
                await connection.execute("COMMIT")
            except BaseException:
                connection.terminate()
                raise
            await self._keep(connection)

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await hang_up(self._idle.pop())

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _keep(self, connection: Connection) -> None:
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            await hang_up(connection)
