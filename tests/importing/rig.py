"""A deployment without processes: a log in NATS and a database, with no member to park."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from nats.aio.client import Client

from runstream.api import ImportReport
from runstream.commits import LogPosition
from runstream.database import Database
from runstream.database.epochs import Epoch, list_epochs, remember_export
from runstream.datamanager.startup import record_epoch
from runstream.errors import RunstreamError
from runstream.importing.epochs import ServicePlace
from runstream.importing.importer import ImportPart, import_snapshot, of_services, verify_file
from runstream.jetstream.connection import nats_connection
from runstream.log import streams
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.objects import ObjectStorage
from runstream.projections.fsck import FsckFindings, fsck
from runstream.projections.parked import parked_at
from runstream.projections.rebuild import rebuild
from runstream.snapshots.compare import Comparison, compare
from runstream.snapshots.export import export, plan
from runstream.snapshots.reading import open_snapshot
from tests.migrated import make_tables
from tests.servers import Servers


def silent(_what: str, _done: int, _total: int) -> None:
    return


@dataclass
class Parked:
    """Members that are all parked, until a test sets `error`."""

    error: RunstreamError | None = None
    asked: list[str] = field(default_factory=list)
    required: int = 0

    async def require(self) -> None:
        self.required += 1
        if self.error is not None:
            raise self.error

    @asynccontextmanager
    async def hold(self, what: str) -> AsyncIterator[Parked]:
        self.asked.append(what)
        yield self


@dataclass
class Rig:
    place: ServicePlace
    parked: Parked = field(default_factory=Parked)

    @property
    def database(self) -> Database:
        return self.place.database

    @asynccontextmanager
    async def log(self) -> AsyncIterator[JetStreamLog]:
        """Open the log as a process would now."""
        async with await open_log(self.place.nats, self.place.namespace) as log:
            yield log

    async def rebuild(self) -> None:
        async with self.log() as log:
            await rebuild(self.place.nats_url, log, self.database, silent)

    async def run_import(self, path: Path, storage: ObjectStorage | None = None) -> ImportReport:
        return await import_snapshot(self.parts(path), storage, silent)

    def parts(self, path: Path) -> list[ImportPart]:
        """Verify a snapshot, and return what an import of it replaces."""
        (snapshot,) = of_services(verify_file(path, "", silent), [self.place.service])
        return [ImportPart(self.place, self.parked.hold, snapshot)]

    async def export(self, path: Path, until: LogPosition | None = None, *, remembered: bool = False) -> Path:
        with path.open("wb") as file:

            async def send(content: bytes) -> None:
                file.write(content)

            async with self.log() as log:
                planned = await plan(log, datetime.now(UTC), until)
                await export(
                    log,
                    send,
                    planned,
                    parked=lambda _, positions: parked_at(log, self.database, positions),
                    remember=partial(remember_export, self.database) if remembered else None,
                )
        return path

    async def fsck(self) -> FsckFindings:
        async with self.log() as log:
            return await fsck(self.database, log)

    async def differences(self) -> list[str]:
        """Return the differences between rows and log; empty when they agree."""
        return (await self.fsck()).lines()[:-1]

    async def epochs(self) -> dict[int, Epoch]:
        return {epoch.number: epoch for epoch in await list_epochs(self.database, self.place.service)}

    async def ends(self, epoch: int, partitions: int) -> tuple[int | None, ...]:
        return await streams.ends(self.place.nats, self.place.subjects(epoch), partitions)


@asynccontextmanager
async def rig(servers: Servers, partitions: int = 3) -> AsyncIterator[Rig]:
    """Yield a deployment with an empty history."""
    await make_tables(servers.database_url, servers.schema)
    database = Database(servers.database_url, servers.schema)
    try:
        async with nats_connection(servers.nats_url) as client:
            await begun(client, database, servers.namespace, partitions)
            yield Rig(ServicePlace(client, servers.nats_url, database, servers.namespace, "runs", 1))
    finally:
        await database.close()


async def begun(client: Client, database: Database, namespace: str, partitions: int) -> None:
    """Create a log and its data status in the database."""
    async with await open_log(client, namespace, create=True, partitions=partitions):
        await record_epoch(database, "runs", 1, partitions)


def compared(first: Path, second: Path) -> Comparison:
    """Compare two snapshots."""
    with open_snapshot(first) as one, open_snapshot(second) as other:
        return compare(one, other)
