"""Loading a snapshot: one partition into its stream of the new epoch, its rows on the way, and the objects.

Bodies stay as they are; only the subject names another epoch. Every partition of a snapshot begins with its first
commit, so each commit keeps its sequence. When the rows have to be built again, the commits are not loaded again.
Objects are added, never replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nats.aio.client import Client

from runstream.config_folding import PARTITION, ConfigFold
from runstream.database.database import Database
from runstream.errors import InternalError, NotExistError
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.publisher import Publisher
from runstream.log.loading import BATCH_COMMITS, StreamLoader
from runstream.log.port import RawMessage
from runstream.objects.port import ObjectStorage
from runstream.projections.rebuild import RebuildPlace
from runstream.projections.rebuild_filling import Filled, fill_partition
from runstream.projections.rebuild_processes import OnDone
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.manifest import Manifest, to_json
from runstream.snapshots.objects import SnapshotObject, object_chunks, objects
from runstream.snapshots.reading import Snapshot, open_snapshot
from runstream.snapshots.segments import as_load


@dataclass(frozen=True, slots=True)
class Target:
    """A verified snapshot and the new epoch to load it into."""

    path: Path
    manifest: str
    """Hash of the verified manifest."""
    place: RebuildPlace
    """The log of the new epoch, and the schema of its rows."""


@dataclass(frozen=True, slots=True)
class LoadFromSnapshot:
    """One partition to load and fill; the snapshot and the new epoch have the same number of partitions."""

    target: Target
    partition: int


async def load_from_snapshot(work: LoadFromSnapshot, tell: OnDone) -> Filled:
    """Load the partition and fill its rows. Raises SnapshotError, InternalError."""
    target, subjects = work.target, work.target.place.subjects
    with open_verified(target.path, target.manifest) as snapshot:
        async with loading(target.place) as (_, publisher, database):
            loader = StreamLoader(publisher, subjects.stream(work.partition))

            async def source(after: int) -> AsyncIterator[Sequence[RawMessage]]:
                all_messages = snapshot.messages(work.partition, subjects)
                wanted = (message for message in all_messages if message.position.sequence > after)
                while messages := [*islice(wanted, BATCH_COMMITS)]:
                    async with loaded_meanwhile(loader, messages):
                        yield messages

            return await fill_partition(database, subjects, work.partition, source, tell, snapshot.skips())


async def load_config(target: Target, tell: OnDone) -> ConfigFold:
    """Load the log of the config service and return its fold. Raises SnapshotError, InternalError."""
    with open_verified(target.path, target.manifest) as snapshot:
        if snapshot.header.partitions != 1:
            raise SnapshotError("snapshot.json", "a log of users, projects and secrets has one partition")
        fold = ConfigFold(snapshot.skips())
        async with loading(target.place) as (_, publisher, _):
            subjects = target.place.subjects
            loader = StreamLoader(publisher, subjects.stream(PARTITION))
            all_messages = snapshot.messages(PARTITION, subjects)
            while messages := [*islice(all_messages, BATCH_COMMITS)]:
                async with loaded_meanwhile(loader, messages):
                    for message in messages:
                        fold.take(message)
                tell(len(messages))
        return fold


@contextmanager
def open_verified(path: Path, manifest: str) -> Iterator[Snapshot]:
    """Open the verified snapshot with this manifest, if the file still has it. Raises SnapshotError."""
    with open_snapshot(path) as opened:
        found = next((one for one in opened.all if hash_of(one.manifest) == manifest), None)
        if found is None:
            raise SnapshotError("the file", "it was replaced by another one while it was imported", code="otherFile")
        yield found


def hash_of(manifest: Manifest) -> str:
    """Return the hash of a manifest, which covers the whole snapshot."""
    return hashlib.sha256(to_json(manifest)).hexdigest()


@asynccontextmanager
async def loading(place: RebuildPlace) -> AsyncIterator[tuple[Client, Publisher, Database]]:
    """Connect a loader to NATS and Postgres."""
    async with (
        Database(place.database_url, place.schema, application="runstream import") as database,
        nats_connection(place.nats_url, "runstream import") as client,
    ):
        publisher = Publisher(client)
        await publisher.start()
        try:
            yield client, publisher, database
        finally:
            await publisher.close()


@asynccontextmanager
async def loaded_meanwhile(loader: StreamLoader, messages: Sequence[RawMessage]) -> AsyncIterator[None]:
    """Load the messages into the partition's stream while the block runs, unless it has them."""
    new = [message for message in messages if message.position.sequence > loader.end]
    task = asyncio.create_task(loader.load([as_load(message) for message in new]))
    try:
        yield
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    last = messages[-1].position.sequence if messages else 0
    if loader.end < last:
        raise InternalError(f"the stream ends at {loader.end}, and should at {last}", code="notLoaded")


async def store_objects(snapshot: Snapshot, storage: ObjectStorage, tell: OnDone) -> int:
    """Store missing objects, and return their number; call `tell` after each object.

    Raises SnapshotError, InternalError.
    """
    added = 0
    for found in objects(snapshot):
        try:
            await storage.stat(found.path)
        except NotExistError:  # the usual case
            await storage.write(found.path, _LoadedContent(snapshot, found), persist=True)
            added += 1
        tell(1)
    return added


class _LoadedContent:
    """The bytes of one object; a wrong hash raises before the end, so that nothing is stored."""

    def __init__(self, snapshot: Snapshot, found: SnapshotObject) -> None:
        self._chunks: Iterator[bytes] = object_chunks(snapshot, found)
        self._rest = b""

    async def read(self, size: int) -> bytes:
        """Return the next bytes. Raises SnapshotError; then nothing is stored."""
        if not self._rest:
            self._rest = await asyncio.to_thread(next, self._chunks, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece
