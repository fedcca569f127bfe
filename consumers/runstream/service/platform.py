"""What the components of a process share: one connection to NATS, one pool to Postgres, the log, the objects."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from nats.aio.client import Client

from runstream.database import Database
from runstream.datamanager.opening import LogPlace, prepare_log
from runstream.errors import InternalError
from runstream.importing.switching import ServicePlace
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.log.streams import described
from runstream.log.waiting import until_described
from runstream.objects import ObjectStorage
from runstream.objects.opening import open_objects
from runstream.sealing import Keyring, make_key_file
from runstream.service.maintained import SERVICE
from runstream.settings import Settings
from runstream.snapshots.manifest import ParkedCommit
from runstream.snapshots.parked import parked_at
from runstream.subjects import Subjects
from runstream.telemetry.health import Check
from runstream.telemetry.process import Telemetry


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
    """None in a process that has executors alone."""
    deployment: str
    """Its id; empty in a process without database."""
    keyring: Keyring
    """For secrets; empty in a process that neither seals nor opens any."""

    def pool(self) -> Database:
        """The database, for a component that has one. Raises InternalError in a process without."""
        if self.database is None:
            raise InternalError("this process has no database", code="noDatabase")
        return self.database

    def place(self) -> ServicePlace:
        """Where the service is, for imports and epochs. Raises InternalError in a process without database."""
        settings = self.settings
        return ServicePlace(self.nats, settings.nats_url, self.pool(), settings.namespace, SERVICE, settings.replicas)

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

    def reading_log(self) -> JetStreamLog:
        """The log in the epoch of now, for who reads it to its end when the service is in another one already."""
        return JetStreamLog(self.nats, self.log.subjects, self.log.partitions, 0.0)

    async def served_log(self) -> JetStreamLog:
        """The log that NATS names now, to be read: in maintenance another epoch may have taken the place of ours."""
        namespace, service = self.log.subjects.namespace, self.log.subjects.service
        said = await described(self.nats, namespace, service)
        if said is None:
            return self.reading_log()
        return JetStreamLog(self.nats, Subjects(namespace, service, said.epoch), said.partitions, 0.0)

    async def parked_at(self, subjects: Subjects, positions: tuple[int, ...]) -> Sequence[ParkedCommit]:
        """What is parked of a log, as of these positions."""
        return await parked_at(JetStreamLog(self.nats, subjects, len(positions), 0.0), self.pool(), positions)


@contextlib.asynccontextmanager
async def open_platform(settings: Settings, telemetry: Telemetry, *, database: bool) -> AsyncIterator[Platform]:
    """Connect; everything is closed when the block ends. Raises InternalError for what cannot be reached."""
    async with contextlib.AsyncExitStack() as stack:
        nats = await stack.enter_async_context(nats_connection(settings.nats_url))
        pool = Database(settings.database_url, settings.database_schema) if database else None
        if pool is not None:
            stack.push_async_callback(pool.close)
        objects = await open_objects(settings)
        deployment = ""
        if pool is not None:
            prepared = await prepare_log(
                LogPlace(nats, pool, objects, settings.namespace, "runs", settings.partitions, settings.replicas)
            )
            deployment = prepared.deployment
        else:
            await until_described(nats, settings.namespace)
        log = await open_log(nats, settings.namespace, partitions=settings.partitions)
        await stack.enter_async_context(log)
        yield Platform(settings, telemetry, nats, log, objects, pool, deployment, _keyring(settings))


def _keyring(settings: Settings) -> Keyring:
    """The keys of this process. A gateway that was told nothing makes one: it is the first that needs it."""
    path = settings.secrets_key_path
    if settings.secrets_key_file is None and not path.exists():
        if "gateway" not in settings.components:
            return Keyring()
        make_key_file(path)
    return Keyring.read(path)
