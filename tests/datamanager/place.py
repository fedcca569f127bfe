"""A log on real servers with its archive on disk, for tests of what happens at a start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nats.aio.client import Client
from sqlalchemy import text

from runstream.database import Database, Transaction
from runstream.datamanager.archive import Archive
from runstream.datamanager.fence import PostgresFence
from runstream.datamanager.shipper import Shipper
from runstream.datamanager.startup import LogPlace, Prepared, prepare_log
from runstream.datamanager.status import DataStatus
from runstream.jetstream.api import request
from runstream.log.jetstream import open_log
from runstream.log.port import RawMessage
from runstream.objects import ObjectStorage
from runstream.subjects import Subjects
from tests.datamanager.rig import HOURS
from tests.log.commits import created, run_address
from tests.log.servers import connected
from tests.projections.playing import migrated

PARTITIONS = 2


@dataclass
class Place:
    """One deployment."""

    nc: Client
    database: Database
    storage: ObjectStorage
    namespace: str

    @property
    def subjects(self) -> Subjects:
        return Subjects(self.namespace, "runs", 1)

    @property
    def archive(self) -> Archive:
        return Archive(self.storage, self.subjects)

    def log_place(self, **changes: object) -> LogPlace:
        values = {"nats": self.nc, "database": self.database, "objects": self.storage, "namespace": self.namespace}
        return LogPlace(**{**values, "service": "runs", "partitions": PARTITIONS, "replicas": 1, **changes})  # type: ignore[arg-type]

    async def prepare(self, **changes: object) -> Prepared:
        return await prepare_log(self.log_place(**changes))

    async def append(self, count: int, partition: int = 0) -> None:
        """Append new runs, one commit each."""
        async with await open_log(self.nc, self.namespace) as log:
            await log.append_all([created(run_address(partition), name=f"build {n}") for n in range(count)])

    async def ship(self) -> DataStatus:
        """Archive what the log has."""
        deployment = (await self.prepare()).deployment
        async with await open_log(self.nc, self.namespace) as log:
            fence = PostgresFence(self.database, "runs", log.epoch)
            shipper = Shipper(log, self.storage, fence, deployment, close_seconds=HOURS)
            shipper.finish()
            return await shipper.run()

    async def logged(self) -> list[list[RawMessage]]:
        """Everything in the log, by partition."""
        found: list[list[RawMessage]] = []
        async with await open_log(self.nc, self.namespace) as log:
            for partition in range(log.partitions):
                messages: list[RawMessage] = []
                async with log.read(partition, 0) as reader:
                    while len(messages) < await log.end(partition):
                        messages += await reader.next_batch(1000)
                found.append(messages)
        return found

    async def lose_nats(self) -> None:
        """Delete everything that NATS has of this deployment."""
        names: list[str] = []
        while more := (await request(self.nc, "STREAM.NAMES", {"offset": len(names)}))["streams"]:
            names += more  # other tests have streams there, too: they do not fit one page
        for name in names:
            if name.startswith((f"{self.namespace}_", f"KV_{self.namespace}_")):
                await request(self.nc, f"STREAM.DELETE.{name}")

    async def project(self, partition: int, sequence: int, epoch: int = 1) -> None:
        """Record that the projection has reached this position and has a run."""
        statement = text(
            "INSERT INTO checkpoints (projection, partition, epoch, sequence, run_sequence) "
            "VALUES ('runs', :partition, :epoch, :sequence, 0) "
            "ON CONFLICT (projection, partition) DO UPDATE SET epoch = :epoch, sequence = :sequence"
        )
        counter = text("INSERT INTO counters VALUES (:partition, 'root', 5) ON CONFLICT DO NOTHING")

        async def work(transaction: Transaction) -> None:
            await transaction.execute(statement, {"partition": partition, "epoch": epoch, "sequence": sequence})
            await transaction.execute(counter, {"partition": partition})

        await self.database.transaction(work)

    async def execute(self, statement: str) -> None:
        await self.database.transaction(lambda transaction: transaction.execute(text(statement)))

    async def rows(self, table: str) -> int:
        async with self.database.snapshot() as transaction:
            found = await transaction.first(text(f"SELECT count(*) AS n FROM {table}"))  # noqa: S608 - of the test
        return int(found["n"]) if found is not None else -1


@asynccontextmanager
async def deployment(
    nats_url: str, database_url: str, schema: str, namespace: str, storage: ObjectStorage
) -> AsyncIterator[Place]:
    async with connected(nats_url) as nc, migrated(database_url, schema) as database:
        yield Place(nc, database, storage, namespace)


def said(messages: list[list[RawMessage]]) -> list[list[tuple[object, ...]]]:
    """What the log says, apart from NATS's own headers and times."""
    return [
        [(m.position, m.subject, m.data, sorted((k, v) for k, v in m.headers.items() if k in _KEPT)) for m in partition]
        for partition in messages
    ]


_KEPT = ("Nats-Msg-Id", "traceparent", "Runstream-Encoding")
