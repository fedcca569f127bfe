"""Owning all partitions for a moment: their workers stop, and begin anew from the rows that are there afterwards.

A partition is owned while a session holds its advisory lock (`runstream.projections.ownership`). Here we queue for each
lock and have its holder's session ended: the holder stops its worker, connects again and queues behind us.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog

from runstream.database.connection import hang_up
from runstream.database.database import Database
from runstream.database.locks import partition_lock_key
from runstream.database.writing import Connection
from runstream.errors import InternalError

OWN_SECONDS = 30.0
_AGAIN_SECONDS = 2.0
_END_HOLDER = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid <> $2 AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) | objid::bigint = $1
"""
log = structlog.get_logger()


@asynccontextmanager
async def all_owned(database: Database, namespace: str, service: str, partitions: int) -> AsyncIterator[None]:
    """Own all partitions while the block lasts. Raises InternalError when a holder does not let go in time."""
    keys = [partition_lock_key(database.schema, namespace, service, partition) for partition in range(partitions)]
    owner, other = await database.connect(watchful=True), await database.connect()
    try:
        async with asyncio.timeout(OWN_SECONDS):
            await _own(owner, other, keys)
        yield
    except TimeoutError as error:
        raise InternalError(
            f"the workers of the partitions did not let go of them within {OWN_SECONDS:.0f} seconds",
            code="partitionsNotOwned",
            hint="`runstream doctor` shows whether Postgres and the schedulers are well",
        ) from error
    finally:
        await hang_up(owner)
        await hang_up(other)


async def _own(owner: Connection, other: Connection, keys: Sequence[int]) -> None:
    owner_pid = owner.get_server_pid()
    for key in keys:
        waiting = asyncio.ensure_future(owner.execute("SELECT pg_advisory_lock($1)", key))
        try:
            while not waiting.done():
                ended = await other.fetch(_END_HOLDER, key, owner_pid)
                if ended:
                    log.info("a worker is asked to begin anew", action="worker_ended", sessions=len(ended))
                await asyncio.wait({waiting}, timeout=_AGAIN_SECONDS)
            waiting.result()
        finally:
            waiting.cancel()
