"""The parts shared by a process's components: one connection to NATS, one pool to Postgres, the log, the object
storage."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nats.aio.client import Client

from runstream import config_folding
from runstream.errors import InternalError
from runstream.jetstream.api import StoreUse, store_use
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.failover import answers_of
from runstream.log.jetstream import JetStreamLog, LogReader, open_log
from runstream.log.streams import wait_for_log
from runstream.maintenance.request import SERVICE
from runstream.objects import ObjectStorage
from runstream.objects.open import open_objects
from runstream.settings import Settings
from runstream.telemetry.health import Check, Fact
from runstream.telemetry.process import Telemetry

if TYPE_CHECKING:
    from runstream.database import Database
    from runstream.importing.epochs import ServicePlace


_CONNECT_SECONDS = 3.0
"""Bound of one attempt to reach NATS, in seconds; a serving process keeps trying."""
_LOG_SECONDS = 10.0
"""Bound of one wait for the log, in seconds, in a process without database: another process makes it."""


@dataclass(frozen=True, slots=True)
class Platform:
    """The shared parts of one process, open."""

    settings: Settings
    """The settings, with all URLs filled in."""
    telemetry: Telemetry
    nats: Client
    log: JetStreamLog
    objects: ObjectStorage
    database: Database | None
    """None in a process with executors only."""
    deployment: str
    """The deployment's id; empty in a process without database."""
    nats_folder: Path | None = None
    """The folder of the embedded NATS server; None where a URL is given."""
    config_log: JetStreamLog | None = None
    """The log of the config service; None in a process with executors only."""
    component_facts: dict[str, Fact] = field(default_factory=dict)
    """Facts that components add to /readyz."""

    def pool(self) -> Database:
        """Return the database. Raise InternalError in a process without one."""
        if self.database is None:
            raise InternalError("this process has no database", code="noDatabase")
        return self.database

    def config(self) -> JetStreamLog:
        """Return the log of the config service. Raise InternalError in a process without one."""
        if self.config_log is None:
            raise InternalError("this process has no log of the config service", code="noConfigLog")
        return self.config_log

    def service_place(self, service: str = SERVICE) -> ServicePlace:
        """Return what importing and deleting epochs need of a service. Raise InternalError without a database."""
        from runstream.importing.epochs import ServicePlace  # not paid for by an executor

        settings = self.settings
        return ServicePlace(self.nats, settings.nats_url, self.pool(), settings.namespace, service, settings.replicas)

    def checks(self) -> Mapping[str, Check]:
        """Return the checks that must pass for this process to be ready."""
        checks: dict[str, Check] = {"nats": self._check_nats}
        if self.database is not None:
            checks["database"] = self._check_database
        return checks

    def facts(self) -> Mapping[str, Fact]:
        """Return further facts for /readyz."""
        return {"nats_store": self._nats_store, **self.component_facts}

    async def _check_nats(self) -> None:
        if not self.nats.is_connected:
            raise InternalError("NATS is not connected", code="natsUnreachable")
        await self.nats.flush(timeout=1)
        store = await self._store()  # JetStream needs a quorum: one server of a cluster alone does not answer
        full = answers_of(self.nats).full or ("it is full" if store.full else "")
        if full:
            raise InternalError(f"the store of NATS takes no more: {full} ({store})", code="notStored")

    async def _store(self) -> StoreUse:
        return await store_use(self.nats, self.nats_folder, seconds=1.5)

    async def _nats_store(self) -> Mapping[str, object]:
        store = await self._store()
        return {"limit": store.limit, "used": store.used, "free": store.free, "left": store.left}

    async def _check_database(self) -> None:
        if self.database is not None:
            async with self.database.snapshot(timeout=1.5):
                return

    def reading_log(self) -> LogReader:
        """Return a read-only view of the current epoch, for readers that outlive an epoch switch."""
        return LogReader(self.nats, self.log.subjects, self.log.partitions)

    def reading_config_log(self) -> LogReader:
        """Return the same of the service `config`."""
        return LogReader(self.nats, self.config().subjects, self.config().partitions)


@contextlib.asynccontextmanager
async def open_platform(
    settings: Settings, telemetry: Telemetry, *, database: bool, nats_folder: Path | None = None
) -> AsyncIterator[Platform]:
    """Connect to NATS, Postgres and the object storage until the block ends.

    `nats_folder` is the folder of an embedded NATS server. Raise InternalError for a server that cannot be reached.
    """
    async with contextlib.AsyncExitStack() as stack:
        nats = await stack.enter_async_context(nats_connection(settings.nats_url, seconds=_CONNECT_SECONDS))
        answers_of(nats).folder = nats_folder
        objects = await open_objects(settings)
        pool: Database | None = None
        deployment = ""
        if database:
            # A process with executors only does not pay for these imports.
            from runstream.database import Database
            from runstream.datamanager.startup import LogPlace, prepare_log

            pool = Database(settings.database_url, settings.database_schema)
            stack.push_async_callback(pool.close)
            place = LogPlace(nats, pool, objects, settings.namespace, "runs", settings.partitions, settings.replicas)
            deployment = (await prepare_log(place)).deployment
            await prepare_log(replace(place, service=config_folding.SERVICE, partitions=1))
        else:
            if not await wait_for_log(nats, settings.namespace, seconds=_LOG_SECONDS):
                raise InternalError(
                    f"there is no log {settings.namespace!r} on this NATS yet",
                    code="logAwaited",
                    hint="the first gateway or scheduler makes it; is this the right NATS and the right namespace?",
                )
        log = await open_log(nats, settings.namespace, partitions=settings.partitions)
        await stack.enter_async_context(log)
        config: JetStreamLog | None = None
        if database:
            config = await open_log(nats, settings.namespace, config_folding.SERVICE, partitions=1)
            await stack.enter_async_context(config)
        yield Platform(settings, telemetry, nats, log, objects, pool, deployment, nats_folder, config)
