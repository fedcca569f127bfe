"""One rebuild, import or activation of an epoch at a time: one process alone makes something beside a schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runstream.database.attempts import bounded
from runstream.database.connection import CONNECT_SECONDS, hang_up
from runstream.database.database import Database
from runstream.database.failures import sqlstate
from runstream.database.locks import lock_key
from runstream.database.writing import Connection
from runstream.errors import ConflictError, InternalError

ALONE_SECONDS = 5.0
"""How long the end of another one is waited for: Postgres needs two to notice that its process was killed."""
_LOCK_NOT_AVAILABLE = "55P03"


@asynccontextmanager
async def alone(database: Database, seconds: float = ALONE_SECONDS) -> AsyncIterator[None]:
    """Be the only one who makes a projection anew in this schema.

    Raises ConflictError when there still is another after so many seconds: one that was killed is over by then.
    """
    connection = await database.connect(watchful=True)
    try:
        if not await _locked(connection, lock_key(f"runstream rebuild {database.schema}"), seconds):
            raise ConflictError(
                "a rebuild, an import or the activation of an epoch goes on already",
                code="rebuildGoesOn",
                hint="wait for its end, or stop it; one that was killed is over within seconds",
            )
        yield
    finally:
        await hang_up(connection)


async def _locked(connection: Connection, key: int, seconds: float) -> bool:
    """Whether the lock was had within so many seconds."""
    try:
        async with bounded(asyncio.get_running_loop().time() + seconds + CONNECT_SECONDS):
            await connection.execute(f"SET lock_timeout = {max(1, int(seconds * 1000))}")
            await connection.execute("SELECT pg_advisory_lock($1)", key)
    except InternalError as error:
        if error.__cause__ is None or sqlstate(error.__cause__) != _LOCK_NOT_AVAILABLE:
            raise
        return False
    return True
