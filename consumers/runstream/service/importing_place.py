"""What importing and epochs need of a deployment, connected for one command."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from runstream.database import Database
from runstream.database.migrating import require_migrated
from runstream.importing.epochs import Occupy, ServicePlace
from runstream.jetstream.connection import nats_connection
from runstream.service.maintained import SERVICE, maintained_service
from runstream.settings import Settings


@contextlib.asynccontextmanager
async def importing_place(settings: Settings) -> AsyncIterator[tuple[ServicePlace, Occupy]]:
    """Connect; everything is closed when the block ends. Raises InternalError for what cannot be reached."""
    await require_migrated(settings.database_url, settings.database_schema)
    database = Database(settings.database_url, settings.database_schema, pool_size=4, application="runstream import")
    try:
        async with nats_connection(settings.nats_url, "runstream import") as client:
            place = ServicePlace(client, settings.nats_url, database, settings.namespace, SERVICE, settings.replicas)
            yield place, (await maintained_service(client, settings)).occupy
    finally:
        await database.close()
