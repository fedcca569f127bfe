"""A transaction is one object: it carries its connection and its deadline, so that nothing else is passed along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

import asyncpg
from sqlalchemy import Connection, Executable, RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

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

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Have a function that knows only SQLAlchemy's synchronous connection do its work in this transaction."""
        return await self._connection.run_sync(work)

    async def driver(self) -> asyncpg.Connection[asyncpg.Record]:
        """The driver's connection inside this transaction: for prepared statements with arrays, COPY and cursors."""
        raw = await self._connection.get_raw_connection()
        return cast("asyncpg.Connection[asyncpg.Record]", raw.driver_connection)

    async def begin(self) -> None:
        """Begin on the server: no statement outlasts the deadline."""
        milliseconds = max(1, int(self.remaining * 1000))
        await self._connection.execute(_BEGIN, {"timeout": f"{milliseconds}ms"})
