"""Whether every consumer of the log moves on."""

from __future__ import annotations

from collections.abc import AsyncIterator

from runstream.database import Database
from runstream.database.migrating import migration_state
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.messaging import Questions
from runstream.log import streams
from runstream.log.jetstream import open_log
from runstream.objects.open import open_objects
from runstream.service.doctor.finding import Finding
from runstream.service.stalls import Consumed, Stall
from runstream.settings import Settings


async def consumers(settings: Settings) -> AsyncIterator[Finding]:
    """Return a finding for each stall; nothing before the first `serve` has made log and rows."""
    stalls = await _stalls(settings)
    for stall in stalls:
        yield Finding(f"{stall.component} of partition {stall.partition}", "problem", str(stall), stall.todo)
    if not stalls:
        yield Finding("consumers of the log", "ok", "none stands still, no commit is parked")


async def _stalls(settings: Settings) -> list[Stall]:
    async with nats_connection(settings.nats_url, "runstream doctor", 5.0) as client:
        if await streams.described(client, settings.namespace, "runs") is None:
            return []
        if not (await migration_state(settings.database_url, settings.database_schema)).up_to_date:
            return []
        database = Database(settings.database_url, settings.database_schema, pool_size=1)
        try:
            async with await open_log(client, settings.namespace) as log:
                objects = await open_objects(settings, make=False)
                return await Consumed(log, database, Questions(client), objects).stalls()
        finally:
            await database.close()
