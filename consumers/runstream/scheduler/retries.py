"""Requests to try parked commits again: heard from the database, where whoever asks has left them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import structlog

from runstream.database.connection import hang_up
from runstream.database.database import Database
from runstream.database.freshness import retry_channel_of
from runstream.errors import InternalError

logger = structlog.get_logger(__name__)

RECONNECT_SECONDS = 1.0
MAX_WAITING = 256
"""Requests that are remembered while one is dealt with; a partition asked for twice is tried once more anyway."""


async def retry_requests(database: Database) -> AsyncIterator[int]:
    """The partitions whose parked commits are to be tried again, endlessly."""
    requests: asyncio.Queue[int | None] = asyncio.Queue(MAX_WAITING)
    while True:
        try:
            connection = await database.connect(watchful=True)
        except InternalError as error:
            logger.warning("Requests for retries are not heard", action="retries_unheard", error=str(error))
            await asyncio.sleep(RECONNECT_SECONDS)
            continue
        try:
            connection.add_termination_listener(lambda _: _offer(requests, None))
            channel = retry_channel_of(database.schema)
            await connection.add_listener(channel, lambda _c, _p, _n, payload: _offer(requests, int(str(payload))))
            while (partition := await requests.get()) is not None:
                yield partition
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            logger.warning("Requests for retries are not heard", action="retries_unheard", error=str(error))
        finally:
            await hang_up(connection)


def _offer(requests: asyncio.Queue[int | None], request: int | None) -> None:
    if not requests.full():
        requests.put_nowait(request)
