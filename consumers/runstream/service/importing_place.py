"""What importing and epochs need of a running deployment, as a command and as the gateway have it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from nats.aio.client import Client

from runstream.database import Database, require_migrated
from runstream.importing.importer import Occupy
from runstream.importing.switching import ServicePlace
from runstream.jetstream.connection import nats_connection
from runstream.leases import open_leases
from runstream.log import streams
from runstream.maintenance import MaintenanceControl, Occupation, occupied
from runstream.service.components import INSTANCE_SECONDS
from runstream.settings import Settings

SERVICE = "runs"


@contextlib.asynccontextmanager
async def importing_place(settings: Settings) -> AsyncIterator[tuple[ServicePlace, Occupy]]:
    """Connect; everything is closed when the block ends. Raises InternalError for what cannot be reached."""
    await require_migrated(settings.database_url, settings.database_schema)
    database = Database(settings.database_url, settings.database_schema, pool_size=4, application="runstream import")
    try:
        async with nats_connection(settings.nats_url, "runstream import") as client:
            place = ServicePlace(client, settings.nats_url, database, settings.namespace, SERVICE, settings.replicas)
            yield place, await occupying(client, settings)
    finally:
        await database.close()


async def occupying(client: Client, settings: Settings) -> Occupy:
    """What makes sure that everybody is parked, and stays so."""
    await streams.create_control_bucket(client, settings.namespace, settings.replicas)
    board = await open_leases(
        client, f"{settings.namespace}_instances", seconds=INSTANCE_SECONDS, replicas=settings.replicas
    )
    control = MaintenanceControl(client, settings.namespace)

    def occupy(what: str) -> AbstractAsyncContextManager[Occupation]:
        return occupied(client, control, board, what, SERVICE)

    return occupy
