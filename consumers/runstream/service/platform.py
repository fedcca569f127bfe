"""What the components of a process share: one connection to NATS, one pool to Postgres, the log, the objects."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from nats.aio.client import Client

from runstream.database import Database
from runstream.errors import InternalError
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.objects import ObjectStorage
from runstream.objects.opening import open_objects
from runstream.settings import Settings
from runstream.telemetry import Check, Telemetry


@dataclass(frozen=True, slots=True)
class Platform:
    """The shared parts of one process, open."""

    settings: Settings
    """With all URLs in place."""
    telemetry: Telemetry
    nats: Client
    log: JetStreamLog
    objects: ObjectStorage
    database: Database | None
    """None in a process without gateway and scheduler."""

    def pool(self) -> Database:
        """The database, for a component that has one. Raises InternalError in a process without."""
        if self.database is None:
            raise InternalError("this process has no database", code="noDatabase")
        return self.database

    def checks(self) -> Mapping[str, Check]:
        """What has to be there for this process to be ready."""
        checks: dict[str, Check] = {"nats": self._check_nats}
        if self.database is not None:
            checks["database"] = self._check_database
        return checks

    async def _check_nats(self) -> None:
        if not self.nats.is_connected:
            raise InternalError("NATS is not connected", code="natsUnreachable")
        await self.nats.flush(timeout=1)

    async def _check_database(self) -> None:
        if self.database is not None:
            async with self.database.snapshot(timeout=1.5):
                return


@contextlib.asynccontextmanager
async def open_platform(settings: Settings, telemetry: Telemetry, *, database: bool) -> AsyncIterator[Platform]:
    """Connect; everything is closed when the block ends. Raises InternalError for what cannot be reached."""
    async with contextlib.AsyncExitStack() as stack:
        nats = await stack.enter_async_context(nats_connection(settings.nats_url))
        pool = Database(settings.database_url, settings.database_schema) if database else None
        if pool is not None:
            stack.push_async_callback(pool.close)
        log = await open_log(
            nats, settings.namespace, create=True, partitions=settings.partitions, replicas=settings.replicas
        )
        await stack.enter_async_context(log)
        yield Platform(settings, telemetry, nats, log, await open_objects(settings), pool)
