"""The connections of commands that work on the data itself, which start embedded servers that are not running."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nats.aio.client import Client

from runstream.database import Database
from runstream.database.migrating import require_migrated
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.maintenance.request import SERVICE
from runstream.service.servers import reached
from runstream.settings import Settings


@dataclass(frozen=True, slots=True)
class Connections:
    """The servers of a service, its log and its database."""

    settings: Settings
    """The settings, with the URLs of both servers."""
    nats: Client
    log: JetStreamLog
    database: Database


@asynccontextmanager
async def connected(
    settings: Settings, application: str, *, service: str = SERVICE, pool_size: int = 1
) -> AsyncIterator[Connections]:
    """Connect to NATS, the log of a service and the migrated database. Raise InternalError where one is away."""
    async with (
        reached(settings) as (complete, _),
        nats_connection(complete.nats_url, application) as client,
        migrated_database(complete, application, pool_size=pool_size) as database,
        await open_log(client, complete.namespace, service) as log,
    ):
        yield Connections(complete, client, log, database)


@asynccontextmanager
async def migrated_database(settings: Settings, application: str, *, pool_size: int = 1) -> AsyncIterator[Database]:
    """Open the database, which has to be at the newest migration."""
    await require_migrated(settings.database_url, settings.database_schema)
    url, schema = settings.database_url, settings.database_schema
    async with Database(url, schema, pool_size=pool_size, application=application) as database:
        yield database
