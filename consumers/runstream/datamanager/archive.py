"""Reads an archive, and verifies all of it: the data status, the segments that it names, the commits in them.

    archive = Archive(objects, Subjects(namespace, "runs", epoch))
    status = await archive.status()
    for partition in range(len(status.partitions)):
        async for messages in archive.commits(status, partition): ...

A reader needs no lock: when a segment was merged while it read, it continues with the newer data status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice

from runstream.counting import counted
from runstream.datamanager.errors import DamagedArchiveError, NoDataStatusError
from runstream.datamanager.status import (
    MAX_BYTES,
    ArchivePaths,
    CurrentEpoch,
    DataStatus,
    IndexReference,
    SegmentIndex,
    fingerprint,
    read_current,
    read_index,
    read_status,
)
from runstream.errors import NotExistError
from runstream.log.port import RawMessage
from runstream.objects.port import Object, ObjectStorage
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.segments import LIMIT_BYTES, Segment, SegmentDescription, check_chain, read_segment
from runstream.subjects import Subjects

_ATTEMPTS = 10
"""Attempts to read a data status that is replaced while it is read."""
_BATCH = 1000


class Archive:
    """The archive of one epoch of one service's log."""

    def __init__(self, objects: ObjectStorage, subjects: Subjects) -> None:
        self.objects = objects
        self.subjects = subjects
        self.paths = ArchivePaths(subjects)

    async def generations(self) -> list[int]:
        """Return the generations that have a data status, in order."""
        found = [self.paths.generation(each.path) async for each in self.objects.list(self.paths.statuses)]
        return sorted(generation for generation in found if generation is not None)

    async def find_status(self) -> DataStatus | None:
        """Return the valid data status; None for none. Raises DamagedArchiveError."""
        for _ in range(_ATTEMPTS):
            generations = await self.generations()
            if not generations:
                return None
            path = self.paths.status(generations[-1])
            try:
                content = await self.content(path, MAX_BYTES)
            except NotExistError:  # a newer one replaced it
                continue
            status = read_status(path, content)
            if status.subjects != self.subjects or status.generation != generations[-1]:
                raise DamagedArchiveError(path, "it is the data status of another log or generation")
            return status
        raise DamagedArchiveError(self.paths.statuses, "it is listed, but cannot be read")

    async def status(self) -> DataStatus:
        """Return the valid data status. Raises NoDataStatusError, DamagedArchiveError."""
        found = await self.find_status()
        if found is None:
            raise NoDataStatusError(self.paths.folder)
        return found

    async def current(self) -> CurrentEpoch | None:
        """Return the epoch that the service's archive names as current; None without one."""
        path = self.paths.current
        try:
            return read_current(path, await self.content(path, MAX_BYTES))
        except NotExistError:
            return None

    async def anything(self) -> Object | None:
        """Return any object of the epoch; None without one."""
        async for found in self.objects.list(self.paths.folder):
            return found
        return None

    async def segments(self, status: DataStatus, partition: int) -> list[SegmentDescription]:
        """Return all segments of a partition, in order, without gaps. Raises DamagedArchiveError, NotExistError."""
        named = status.partitions[partition]
        lists = [named.segments]
        reference = named.index
        while reference is not None:
            index = await self.index(partition, reference)
            lists.append(index.segments)
            reference = index.previous
        segments = [segment for each in reversed(lists) for segment in each]
        self._check(status, partition, segments)
        return segments

    async def index(self, partition: int, reference: IndexReference) -> SegmentIndex:
        """Read a list of older segments. Raises DamagedArchiveError, NotExistError."""
        path = self.paths.index(partition, reference)
        return read_index(path, await self.content(path, MAX_BYTES), reference)

    async def segment(self, description: SegmentDescription) -> Segment:
        """Read a segment, unverified. Raises DamagedArchiveError, NotExistError."""
        return Segment(description, await self.content(self.paths.segment(description), LIMIT_BYTES))

    async def commits(self, status: DataStatus, partition: int) -> AsyncIterator[list[RawMessage]]:
        """Yield the commits in order, up to the end of the status, each segment verified.

        Memory holds one segment. Raises DamagedArchiveError, which names the object.
        """
        after, end = 0, status.partitions[partition].last
        while after < end:
            try:
                async for messages in self._commits(status, partition, after, end):
                    after = messages[-1].position.sequence
                    yield messages
            except NotExistError as error:
                status = await self._newer(status, error)

    async def verify(self, status: DataStatus, partition: int) -> int:
        """Read a whole partition, check every hash, and return the number of commits. Raises DamagedArchiveError."""
        count, last = 0, None
        async for messages in self.commits(status, partition):
            count, last = count + len(messages), messages[-1]
        tip = status.partitions[partition].tip
        if (tip.sha256 if tip is not None else None) != (fingerprint(last) if last is not None else None):
            path = self.paths.status(status.generation)
            raise DamagedArchiveError(path, f"the last commit of partition {partition} is not the one that it states")
        return count

    async def content(self, path: str, limit: int) -> bytes:
        """Read a whole object. Raises NotExistError, DamagedArchiveError for one over the limit (in bytes)."""
        async with await self.objects.read(path) as stored:
            if stored.size > limit:
                raise DamagedArchiveError(path, f"it has {counted(stored.size, 'byte')}")
            return await stored.read(0, stored.size)

    async def _commits(
        self, status: DataStatus, partition: int, after: int, end: int
    ) -> AsyncIterator[list[RawMessage]]:
        for description in await self.segments(status, partition):
            if description.last <= after or description.first > end:
                continue
            segment = await self.segment(description)
            messages = read_segment(description, segment.data, self.subjects)
            try:
                async for batch in batches(messages):
                    wanted = [message for message in batch if after < message.position.sequence <= end]
                    if wanted:
                        yield wanted
            except SnapshotError as error:
                raise _damaged(self.paths.segment(description), error) from error

    async def _newer(self, status: DataStatus, error: NotExistError) -> DataStatus:
        """Return the data status that replaced this one, whose segment is gone; raise if there is none."""
        newer = await self.status()
        if (newer.generation, newer.serial) <= (status.generation, status.serial):
            raise DamagedArchiveError(str(error.details.get("path", self.paths.folder)), "it is missing") from error
        return newer

    def _check(self, status: DataStatus, partition: int, segments: list[SegmentDescription]) -> None:
        path = self.paths.status(status.generation)
        if any(segment.partition != partition for segment in segments) or (segments and segments[0].first != 1):
            raise DamagedArchiveError(path, f"the segments of partition {partition} do not begin with its first commit")
        try:
            ends = check_chain(segments, status.epoch, len(status.partitions))
        except SnapshotError as error:
            raise _damaged(path, error) from error
        if ends[partition] != status.partitions[partition].last:
            raise DamagedArchiveError(path, f"the segments of partition {partition} end at {ends[partition]}")


async def batches(messages: Iterator[RawMessage]) -> AsyncIterator[list[RawMessage]]:
    """Decode messages in a thread, and yield them in batches."""
    while batch := await asyncio.to_thread(lambda: [*islice(messages, _BATCH)]):
        yield batch


def _damaged(path: str, error: SnapshotError) -> DamagedArchiveError:
    line = f"line {error.line}: " if error.line else ""
    return DamagedArchiveError(path, f"{line}{error.problem}")
