"""Connections for who writes batch after batch: kept open, with nothing between the writer and the driver.

A transaction here costs a quarter of the CPU of one from the pool (146 against 567 us for a batch of one commit),
which is what the projection of an idle or lightly loaded service consists of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from runstream.database.attempts import bounded
from runstream.database.connection import hang_up

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

IDLE_SECONDS = 5.0
"""How long a transaction may wait for its writer: a process that stands still holds the checkpoint's row no longer."""
MAX_IDLE = 16
"""Connections that are kept for the next writer."""


@dataclass(frozen=True, slots=True)
class Writing:
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
    async def begun(self, deadline: float) -> AsyncIterator[Writing]:
        """A transaction, committed when the block ends, rolled back (with its connection) when it fails."""
        async with bounded(deadline):
            connection = self._kept() or await self._connect()
            try:
                milliseconds = max(1, int((deadline - asyncio.get_running_loop().time()) * 1000))
                await connection.execute(
                    f"BEGIN; SET LOCAL synchronous_commit = off; SET LOCAL statement_timeout = {milliseconds}; "
                    f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_SECONDS * 1000:.0f}"
                )
                yield Writing(connection, deadline)
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
