"""Transactions: from the pool, for reading and changing; and on a connection of a writer, for batch after batch.

A writer's transaction has nothing between it and the driver: it costs a quarter of the CPU of one from the pool (146
against 567 µs for a batch of one commit), and an idle or lightly loaded service does little else than project.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

from sqlalchemy import Connection as SyncConnection
from sqlalchemy import Executable, RowMapping, text
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
        """When it is given up, on the event loop's clock (seconds)."""

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; never negative."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    async def rows(self, statement: Executable, values: Mapping[str, object] | None = None) -> Sequence[RowMapping]:
        """All rows that the statement gives, each by the names of its columns."""
        result = await self._connection.execute(statement, values)
        return result.mappings().all()

    async def first(self, statement: Executable, values: Mapping[str, object] | None = None) -> RowMapping | None:
        """The first row that the statement gives, or None."""
        result = await self._connection.execute(statement, values)
        return result.mappings().first()

    async def execute(self, statement: Executable, values: Mapping[str, object] | None = None) -> int:
        """Run the statement; how many rows it changed."""
        result = await self._connection.execute(statement, values)
        return result.rowcount

    async def run(self, work: Callable[[SyncConnection], T]) -> T:
        """Have a function that knows only SQLAlchemy's synchronous connection do its work in this transaction."""
        return await self._connection.run_sync(work)

    async def driver(self) -> Connection:
        """The driver's connection inside this transaction: for prepared statements with arrays, COPY and cursors."""
        raw = await self._connection.get_raw_connection()
        return cast("Connection", raw.driver_connection)

    async def begin(self) -> None:
        """Begin on the server: no statement outlasts the deadline."""
        milliseconds = max(1, int(self.remaining * 1000))
        await self._connection.execute(_BEGIN, {"timeout": f"{milliseconds}ms"})


IDLE_SECONDS = 5.0
"""How long a transaction may wait for its writer: a process that stands still holds the checkpoint's row no longer."""
MAX_IDLE = 16
"""Connections that are kept for the next writer."""


@dataclass(frozen=True, slots=True)
class WriterTransaction:
    """An open transaction that writes what can be made again from the log: it does not wait for the disk."""

    connection: Connection
    deadline: float
    """When it is given up, on the event loop's clock (seconds)."""


class Writers:
    """The connections of the writers of one process."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def begun(self, deadline: float) -> AsyncIterator[WriterTransaction]:
        """A transaction, committed when the block ends, rolled back (with its connection) when it fails."""
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
        """Close the connections that are kept."""
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
