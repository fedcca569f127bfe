"""What tests of the archive share: a log in memory, generations in memory, and a storage that dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runstream.datamanager import fence as fences
from runstream.datamanager.archive import Archive
from runstream.datamanager.shipper import Shipper
from runstream.datamanager.status import DataStatus
from runstream.log.port import RawMessage, ReadableLog
from runstream.objects import ByteSource, Object, ObjectReader, ObjectStorage
from tests.log.commits import created, run_address
from tests.log.memory import MemoryLog

DEPLOYMENT = "a deployment"
HOURS = 3600.0


class Fence:
    """Generations in memory."""

    def __init__(self) -> None:
        self.given = 0

    async def take(self, known: int) -> int:
        self.given = max(self.given, known) + 1
        return self.given

    async def holds(self, generation: int) -> bool:
        return generation == self.given

    async def last(self) -> int:
        return self.given


class Killed(BaseException):
    """A simulated SIGKILL, which no code handles."""


def kind_of(path: str) -> str:
    """What an object of the archive is."""
    kinds = {"status-": "status", "current": "current", "index-": "list"}
    return next((kind for part, kind in kinds.items() if part in path), "segment")


@dataclass
class Mortal:
    """An object storage whose process is killed at one of its changes: before it, in the middle of it, or after it."""

    storage: ObjectStorage
    what: str
    """The kind of object (`kind_of`), or `delete`, at whose change it is killed."""
    at: int
    """At which of these changes, counted from 0."""
    when: str = "before"
    killed: bool = False

    def _due(self, what: str) -> bool:
        if what == self.what:
            self.at -= 1
            self.killed = self.killed or self.at == -1
            return self.at == -1
        return False

    async def stat(self, path: str) -> Object:
        return await self.storage.stat(path)

    async def read(self, path: str) -> ObjectReader:
        return await self.storage.read(path)

    async def write(self, path: str, source: ByteSource, *, size: int = -1, persist: bool = False) -> None:
        due = self._due(kind_of(path))
        if due and self.when == "before":
            raise Killed
        await self.storage.write(path, source, size=size, persist=persist)
        if due:
            raise Killed

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        due = self._due(kind_of(next(iter(contents))))
        if due and self.when == "before":
            raise Killed
        some = dict(list(contents.items())[: len(contents) // 2])
        await self.storage.write_all(some if due and self.when == "within" else contents)
        if due:
            raise Killed

    async def create(self, path: str, content: Path) -> bool:
        return await self.storage.create(path, content)

    async def delete(self, path: str) -> None:
        due = self._due("delete")
        if due and self.when == "before":
            raise Killed
        await self.storage.delete(path)
        if due:
            raise Killed

    def list(self, prefix: str = "", *, start_after: str = "", recursive: bool = True) -> AsyncIterator[Object]:
        return self.storage.list(prefix, start_after=start_after, recursive=recursive)


async def fill(log: MemoryLog, count: int, partition: int = 0, name: str = "build") -> None:
    """Append new runs, one commit each."""
    await log.append_all([created(run_address(partition), name=f"{name} {number}") for number in range(count)])


async def ship(log: MemoryLog, storage: ObjectStorage, fence: Fence, *, grace: float = HOURS) -> DataStatus:
    """Take the archive over, archive what the log has, and end."""
    shipper = Shipper(log, storage, fence, DEPLOYMENT, close_seconds=HOURS, grace=grace)
    shipper.finish()
    return await shipper.run()


@asynccontextmanager
async def shipping(
    log: ReadableLog,
    storage: ObjectStorage,
    fence: fences.Fence,
    deployment: str = DEPLOYMENT,
    *,
    close_seconds: float = 0.0,
    grace: float = HOURS,
) -> AsyncIterator[Shipper]:
    """A shipper at work, ended in order."""
    shipper = Shipper(log, storage, fence, deployment, close_seconds=close_seconds, grace=grace)
    running = asyncio.create_task(shipper.run())
    began = asyncio.create_task(shipper.began.wait())
    await asyncio.wait({running, began}, return_when=asyncio.FIRST_COMPLETED)
    began.cancel()
    try:
        yield shipper
        shipper.finish()
        await running
    finally:
        running.cancel()
        await asyncio.wait({running})


async def archived(log: MemoryLog, storage: ObjectStorage) -> list[list[RawMessage]]:
    """Everything in the archive, verified, by partition."""
    return await archived_of(Archive(storage, log.subjects))


async def archived_of(archive: Archive) -> list[list[RawMessage]]:
    """Everything in an archive, verified, by partition."""
    status = await archive.status()
    found: list[list[RawMessage]] = []
    for partition in range(len(status.partitions)):
        await archive.verify(status, partition)
        found.append([message async for batch in archive.commits(status, partition) for message in batch])
    return found


async def logged(log: MemoryLog) -> list[list[RawMessage]]:
    """Everything in the log, by partition."""
    found: list[list[RawMessage]] = []
    for partition in range(log.partitions):
        messages: list[RawMessage] = []
        async with log.read(partition, 0) as reader:
            while len(messages) < await log.end(partition):
                messages += await reader.next_batch(1000)
        found.append(messages)
    return found


def same(left: list[list[RawMessage]], right: list[list[RawMessage]]) -> bool:
    """Return True if these are the same commits at the same positions."""
    return [[_said(message) for message in partition] for partition in left] == [
        [_said(message) for message in partition] for partition in right
    ]


def _said(message: RawMessage) -> tuple[object, ...]:
    return message.position, message.subject, message.data, message.stored_at, message.headers.get("traceparent", "")


async def paths(storage: ObjectStorage, prefix: str = "archive/") -> list[str]:
    """All objects below a prefix."""
    return [each.path async for each in storage.list(prefix)]
