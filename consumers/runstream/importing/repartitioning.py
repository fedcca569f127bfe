"""Loading a snapshot into another number of partitions: one reader, and a loader for each partition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from nats.aio.client import Client

from runstream.commits import Position
from runstream.database.database import Database
from runstream.errors import RunstreamError
from runstream.importing.loading import Target, loaded_meanwhile, loading, verified
from runstream.importing.routing import Routed, routed
from runstream.jetstream.publisher import Publisher
from runstream.log.jetstream import LogReader
from runstream.log.loading import BATCH_COMMITS, StreamLoader
from runstream.log.port import RawMessage
from runstream.projections.rebuild_filling import Filled, Tell, fill_partition
from runstream.skips import Skips
from runstream.subjects import Subjects

_WAITING = 2
"""Batches of a partition that may wait to be loaded."""


async def repartition(target: Target, tell: Tell) -> list[Filled]:
    """Load all of the snapshot and fill the rows. Raises SnapshotError, InternalError."""
    with verified(Path(target.path), target.manifest) as snapshot:
        async with loading(target) as (client, publisher, database):
            lanes = [_Lane(partition, target, client, publisher) for partition in range(target.partitions)]
            skips = await asyncio.to_thread(snapshot.skips)
            messages = routed(snapshot, target.partitions)
            return await _loaded(messages, lanes, [lane.fill(database, tell, skips) for lane in lanes])


async def _loaded(
    messages: Iterator[Routed], lanes: Sequence[_Lane], fills: Sequence[Coroutine[None, None, Filled]]
) -> list[Filled]:
    try:
        async with asyncio.TaskGroup() as group:
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
class _Lane:
    """One partition of the new log."""

    partition: int
    target: Target
    client: Client
    publisher: Publisher
    sequence: int = 0
    _batch: list[RawMessage] = field(default_factory=list)
    _waiting: asyncio.Queue[list[RawMessage]] = field(default_factory=lambda: asyncio.Queue(_WAITING))

    async def add(self, message: RawMessage) -> None:
        """The next message; waits while many wait already."""
        self.sequence += 1
        position = Position(self.target.subjects.epoch, self.partition, self.sequence)
        self._batch.append(_moved_to(message, self.target.subjects, position))
        if len(self._batch) == BATCH_COMMITS:
            await self._send()

    async def end(self) -> None:
        """There are no more."""
        if self._batch:
            await self._send()
        await self._waiting.put([])

    async def fill(self, database: Database, tell: Tell, skips: Skips) -> Filled:
        """Load what comes, and fill the rows."""
        subjects = self.target.subjects
        loader = StreamLoader(self.publisher, subjects.stream(self.partition))
        log = LogReader(self.client, subjects, self.target.partitions)

        async def source(after: int) -> AsyncIterator[Sequence[RawMessage]]:
            if after < loader.end:  # it begins anew: what was loaded is in the stream
                async with log.read(self.partition, after) as reader:
                    while after < loader.end:
                        messages = await reader.next_batch(BATCH_COMMITS)
                        after += len(messages)
                        yield messages
            while messages := await self._waiting.get():
                async with loaded_meanwhile(loader, messages):
                    yield messages
            self._waiting.put_nowait([])  # for who begins anew

        return await fill_partition(database, subjects, self.partition, source, tell, skips)

    async def _send(self) -> None:
        batch, self._batch = self._batch, []
        await self._waiting.put(batch)


def _moved_to(message: RawMessage, subjects: Subjects, at: Position) -> RawMessage:
    """The message at another position."""
    subject = f"{subjects.prefix(at.partition)}.{message.subject.split('.', 4)[-1]}"
    return RawMessage(subject, at, message.data, message.headers, message.stored_at)
