"""Loading a snapshot into another number of partitions: one reader routes commits to a loader for each partition.

All of one group root stays together and in order: commits of one partition keep their order, and partitions merge by
the time of their commits. A run config has no group: it goes ahead of the first run that refers to it, to each
partition that has such a run. A temporary file, not memory, holds the partition of each aggregate.
"""

from __future__ import annotations

import asyncio
import heapq
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TypeAlias

import msgspec
from nats.aio.client import Client

from runstream.codec import decode
from runstream.commits import DecodedCommit, Position
from runstream.database.database import Database
from runstream.errors import BadRequestError, RunstreamError
from runstream.events.executor_task import ExecutorTaskAssigned
from runstream.events.run import RunCreated
from runstream.events.webhook import WebhookReceived
from runstream.feed import read_up_to
from runstream.importing.loading import Target, loaded_meanwhile, loading, open_verified
from runstream.jetstream.publisher import Publisher
from runstream.lifecycle import StrictTaskGroup
from runstream.log.jetstream import LogReader
from runstream.log.loading import BATCH_COMMITS, StreamLoader
from runstream.log.port import RawMessage
from runstream.projections.rebuild import RebuildPlace
from runstream.projections.rebuild_filling import Filled, fill_partition
from runstream.projections.rebuild_processes import OnDone
from runstream.skips import Skips
from runstream.snapshots.manifest import parked_from
from runstream.snapshots.reading import Snapshot
from runstream.subjects import aggregate_of, group_root, parse_subject, partition_of

KEPT = 50_000
"""Aggregates whose partition stays in memory."""
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE places (aggregate TEXT PRIMARY KEY, partition INTEGER) WITHOUT ROWID;
CREATE TABLE configs (hash TEXT PRIMARY KEY, message BLOB, sent INTEGER DEFAULT 0) WITHOUT ROWID;
CREATE TABLE sent (hash TEXT, partition INTEGER, PRIMARY KEY (hash, partition)) WITHOUT ROWID;
"""

Routed: TypeAlias = tuple[int, RawMessage]
"""A partition of the new log and its next message, which still has its old position."""
_InOrder: TypeAlias = tuple[datetime, int, int, RawMessage, DecodedCommit | None, bool]
"""The commit's time (never before that of the one before it), old position, message, decoded commit if it is
readable, and whether it was parked in the source."""


def routed(snapshot: Snapshot, partitions: int) -> Iterator[Routed]:
    """Yield all commits of the snapshot, each with its new partition. Raises SnapshotError."""
    with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as file:
        file.executescript(_SCHEMA)
        file.execute("BEGIN")
        router = _Router(partitions, file)
        skips = snapshot.skips()
        sources = []
        for partition in range(snapshot.header.partitions):
            parked = parked_from(snapshot.manifest, snapshot.header.subjects, partition)
            sources.append(_by_time(snapshot.messages(partition), skips, parked))
        for _, _, _, message, commit, was_parked in heapq.merge(*sources, key=lambda one: one[:3]):
            if commit is None or not commit.events or commit.address.kind == "skip":
                yield router.home(message)
            elif was_parked:
                yield from router.route_parked(message, commit)
            else:
                yield from router.route(message, commit)
        yield from router.unused()


def _by_time(messages: Iterator[RawMessage], skips: Skips, parked: Mapping[str, int]) -> Iterator[_InOrder]:
    """Yield a partition's commits with times that never decrease, so that merging keeps their order."""
    latest = datetime.min.replace(tzinfo=UTC)
    for message in messages:
        sequence = message.position.sequence
        was_parked = bool(parked) and sequence >= parked.get(aggregate_of(message.subject), sequence + 1)
        commit = _commit(message, skips, was_parked=was_parked)
        latest = max(latest, commit.time) if commit is not None and commit.events else latest
        yield latest, message.position.partition, sequence, message, commit, was_parked


def _commit(message: RawMessage, skips: Skips, *, was_parked: bool) -> DecodedCommit | None:
    skipped = skips.find(message)
    try:
        return decode(message).commit if skipped is None else skipped.commit
    except BadRequestError:
        if was_parked:
            return None
        raise


class _Router:
    def __init__(self, partitions: int, file: sqlite3.Connection) -> None:
        self._partitions = partitions
        self._file = file
        self._places: dict[str, int] = {}
        self._sent: set[tuple[str, int]] = set()

    def route(self, message: RawMessage, commit: DecodedCommit) -> Iterator[Routed]:
        """Yield a message with its partition, after the run config that it needs there."""
        address = commit.address
        if address.kind == "runconfig":
            self._keep(address.id, message)
            return
        if address.kind == "executor":
            partition = partition_of(address.id, self._partitions)
        elif commit.version == 1:
            partition = self._begun(commit)
        elif (known := self._known_place(address.aggregate)) is not None:
            partition = known
        else:
            raise BadRequestError(f"{address.aggregate} goes on before it has begun", code="cannotRepartition")
        for event in commit.events:
            if isinstance(event, RunCreated):
                yield from self._config(event.run_config, partition)
        yield partition, message

    def route_parked(self, message: RawMessage, commit: DecodedCommit) -> Iterator[Routed]:
        """Route a readable commit that was parked in the source: what it refers to may be missing."""
        try:
            yield from [*self.route(message, commit)] if commit.address.kind != "runconfig" else [self.home(message)]
        except BadRequestError:
            yield self.home(message)

    def home(self, message: RawMessage) -> Routed:
        """Route a message by its subject alone: it is unreadable or not applied."""
        return self._home(message.subject.split(".", 4)[-1]), message

    def unused(self) -> Iterator[Routed]:
        """Yield the run configs that no run refers to."""
        for content_hash, message in self._file.execute("SELECT hash, message FROM configs WHERE sent = 0"):
            yield partition_of(content_hash, self._partitions), _read(message)

    def _home(self, subject: str) -> int:
        """Return the partition for a subject: that of its aggregate, if it names one.

        A decision about a subject goes where the subject's commits go.
        """
        while subject.startswith("skip."):
            subject = subject.removeprefix("skip.")
        try:
            address = parse_subject(f"-.-.-.0.{subject}")
        except BadRequestError:
            return partition_of(subject, self._partitions)
        if address.kind in ("executor", "runconfig"):
            return partition_of(address.id, self._partitions)
        place = self._known_place(address.aggregate)
        if place is None:
            place = partition_of(subject, self._partitions)
            self._note(address.aggregate, place)
        return place

    def _begun(self, commit: DecodedCommit) -> int:
        """Return the partition of a new aggregate, from its group."""
        for event in commit.events:
            if isinstance(event, RunCreated | ExecutorTaskAssigned | WebhookReceived):
                root = f"/project/{event.project_id}" if isinstance(event, WebhookReceived) else group_root(event.group)
                partition = partition_of(root, self._partitions)
                self._note(commit.address.aggregate, partition)
                return partition
        raise BadRequestError(
            f"{commit.address.aggregate} does not begin with an event that names its group", code="cannotRepartition"
        )

    def _note(self, aggregate: str, partition: int) -> None:
        self._places[aggregate] = partition
        if len(self._places) > KEPT:
            self._file.executemany("INSERT OR REPLACE INTO places VALUES (?, ?)", self._places.items())
            self._places.clear()

    def _known_place(self, aggregate: str) -> int | None:
        known = self._places.get(aggregate)
        if known is not None:
            return known
        found = self._file.execute("SELECT partition FROM places WHERE aggregate = ?", (aggregate,)).fetchone()
        return int(found[0]) if found is not None else None

    def _keep(self, content_hash: str, message: RawMessage) -> None:
        row = (content_hash, msgspec.msgpack.encode(message))
        self._file.execute("INSERT OR IGNORE INTO configs (hash, message) VALUES (?, ?)", row)

    def _config(self, content_hash: str, partition: int) -> Iterator[Routed]:
        """Yield the run config, unless the partition has it already."""
        key = (content_hash, partition)
        if (
            key in self._sent
            or self._file.execute("SELECT 1 FROM sent WHERE hash = ? AND partition = ?", key).fetchone()
        ):
            return
        found = self._file.execute("SELECT message FROM configs WHERE hash = ?", (content_hash,)).fetchone()
        if found is None:
            raise BadRequestError(
                f"run config {content_hash} is not before the run that needs it", code="cannotRepartition"
            )
        self._file.execute("INSERT INTO sent VALUES (?, ?)", key)
        self._file.execute("UPDATE configs SET sent = 1 WHERE hash = ?", (content_hash,))
        self._sent.add(key)
        if len(self._sent) > KEPT:
            self._sent.clear()
        yield partition, _read(found[0])


_read = msgspec.msgpack.Decoder(RawMessage).decode
_WAITING = 2
"""Batches of a partition that may queue for loading."""


async def repartition(target: Target, tell: OnDone) -> list[Filled]:
    """Load the whole snapshot and fill its rows. Raises SnapshotError, InternalError."""
    with open_verified(target.path, target.manifest) as snapshot:
        async with loading(target.place) as (client, publisher, database):
            place = target.place
            lanes = [_PartitionLoader(partition, place, client, publisher) for partition in range(place.partitions)]
            skips = await asyncio.to_thread(snapshot.skips)
            messages = routed(snapshot, place.partitions)
            return await _loaded(messages, lanes, [lane.fill(database, tell, skips) for lane in lanes])


async def _loaded(
    messages: Iterator[Routed], lanes: Sequence[_PartitionLoader], fills: Sequence[Coroutine[None, None, Filled]]
) -> list[Filled]:
    try:
        async with StrictTaskGroup() as group:
            filling = [group.create_task(fill) for fill in fills]
            while batch := await asyncio.to_thread(lambda: [*islice(messages, BATCH_COMMITS)]):
                for partition, message in batch:
                    await lanes[partition].add(message)
            for lane in lanes:
                await lane.end()
    except* RunstreamError as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in filling]


@dataclass(slots=True)
class _PartitionLoader:
    """The loader of one partition of the new log."""

    partition: int
    place: RebuildPlace
    client: Client
    publisher: Publisher
    sequence: int = 0
    _batch: list[RawMessage] = field(default_factory=list)
    _waiting: asyncio.Queue[list[RawMessage]] = field(default_factory=lambda: asyncio.Queue(_WAITING))

    async def add(self, message: RawMessage) -> None:
        """Add the next message; wait while `_WAITING` batches are queued."""
        self.sequence += 1
        subjects = self.place.subjects
        position = Position(subjects.epoch, self.partition, self.sequence)
        subject = f"{subjects.prefix(self.partition)}.{message.subject.split('.', 4)[-1]}"
        self._batch.append(RawMessage(subject, position, message.data, message.headers, message.stored_at))
        if len(self._batch) == BATCH_COMMITS:
            await self._send()

    async def end(self) -> None:
        """End the queue: no more messages follow."""
        if self._batch:
            await self._send()
        await self._waiting.put([])

    async def fill(self, database: Database, tell: OnDone, skips: Skips) -> Filled:
        """Load queued messages and fill the rows."""
        subjects = self.place.subjects
        loader = StreamLoader(self.publisher, subjects.stream(self.partition))
        log = LogReader(self.client, subjects, self.place.partitions)

        async def source(after: int) -> AsyncIterator[Sequence[RawMessage]]:
            # In a second pass, loaded messages are in the stream.
            async for messages in read_up_to(log, self.partition, loader.end, after=after, limit=BATCH_COMMITS):
                yield messages
            while messages := await self._waiting.get():
                async with loaded_meanwhile(loader, messages):
                    yield messages
            self._waiting.put_nowait([])  # for a second pass

        return await fill_partition(database, subjects, self.partition, source, tell, skips)

    async def _send(self) -> None:
        batch, self._batch = self._batch, []
        await self._waiting.put(batch)
