"""Reading an archive: the data status, the segments that it names, and the commits in them, all of it verified.

    archive = Archive(objects, Subjects(namespace, "runs", epoch))
    status = await archive.status()
    for partition in range(len(status.partitions)):
        async for messages in archive.commits(status, partition): ...

Nobody has to hold anything to read: segments that were merged meanwhile are found again by the newer data status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice

from runstream.counting import counted
from runstream.datamanager.errors import DamagedArchiveError, NoDataStatusError
from runstream.datamanager.status import (
    MAX_BYTES,
    CurrentEpoch,
    DataStatus,
    IndexReference,
    Places,
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
"""How often the data status is looked for anew, when it was replaced while it was read."""
_BATCH = 1000


class Archive:
    """The archive of one epoch of one service's log."""

    def __init__(self, objects: ObjectStorage, subjects: Subjects) -> None:
        self.objects = objects
        self.subjects = subjects
        self.places = Places.of(subjects)

    async def generations(self) -> list[int]:
        """The generations of which there is a data status, in order."""
        found = [self.places.generation(each.path) async for each in self.objects.list(self.places.statuses)]
        return sorted(generation for generation in found if generation is not None)

    async def find_status(self) -> DataStatus | None:
        """The data status that holds; None when there is none. Raises DamagedArchiveError for one that is not whole."""
        for _ in range(_ATTEMPTS):
            generations = await self.generations()
            if not generations:
                return None
            path = self.places.status(generations[-1])
            try:
                content = await self.content(path, MAX_BYTES)
            except NotExistError:  # a newer one has taken its place
                continue
            return self._checked(path, read_status(path, content))
        raise DamagedArchiveError(self.places.statuses, "it is listed, but cannot be read")

    async def status(self) -> DataStatus:
        """The data status that holds. Raises NoDataStatusError, DamagedArchiveError."""
        found = await self.find_status()
        if found is None:
            raise NoDataStatusError(self.places.folder)
        return found

    async def current(self) -> CurrentEpoch | None:
        """Which epoch the archives of this service name as the current one; None when none does."""
        path = self.places.current
        try:
            return read_current(path, await self.content(path, MAX_BYTES))
        except NotExistError:
            return None

    async def anything(self) -> Object | None:
        """Some object of the epoch, if there is one."""
        async for found in self.objects.list(self.places.folder):
            return found
        return None

    async def segments(self, status: DataStatus, partition: int) -> list[SegmentDescription]:
        """All segments of a partition, in order, without a gap. Raises DamagedArchiveError, NotExistError."""
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
        """A list of older segments. Raises DamagedArchiveError, NotExistError."""
        path = self.places.index(partition, reference.first, reference.last, reference.sha256)
        return read_index(path, await self.content(path, MAX_BYTES), reference)

    async def segment(self, description: SegmentDescription) -> Segment:
        """A segment, not verified yet. Raises DamagedArchiveError, NotExistError."""
        return Segment(description, await self.content(self.places.segment(description), LIMIT_BYTES))

    async def commits(self, status: DataStatus, partition: int, after: int = 0) -> AsyncIterator[list[RawMessage]]:
        """What the log had behind a sequence, in order, up to where the status goes; verified segment by segment.

        Memory holds one segment. Raises DamagedArchiveError that names the object.
        """
        end = status.partitions[partition].last
        while after < end:
            try:
                async for messages in self._commits(status, partition, after, end):
                    after = messages[-1].position.sequence
                    yield messages
            except NotExistError as error:
                status = await self._newer(status, error)

    async def verify(self, status: DataStatus, partition: int) -> int:
        """Read all of a partition, check every hash, and return how many commits it has. Raises DamagedArchiveError."""
        count, last = 0, None
        async for messages in self.commits(status, partition):
            count, last = count + len(messages), messages[-1]
        tip = status.partitions[partition].tip
        if (tip.sha256 if tip is not None else None) != (fingerprint(last) if last is not None else None):
            path = self.places.status(status.generation)
            raise DamagedArchiveError(path, f"the last commit of partition {partition} is not the one that it says")
        return count

    async def content(self, path: str, limit: int) -> bytes:
        """An object as a whole. Raises NotExistError, DamagedArchiveError for one that is larger than it can be."""
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
                while batch := await asyncio.to_thread(_taken, messages):
                    wanted = [message for message in batch if after < message.position.sequence <= end]
                    if wanted:
                        yield wanted
            except SnapshotError as error:
                raise _damaged(self.places.segment(description), error) from error

    async def _newer(self, status: DataStatus, error: NotExistError) -> DataStatus:
        """The data status of now, when what the older one names is gone because it was merged."""
        newer = await self.status()
        if (newer.generation, newer.serial) <= (status.generation, status.serial):
            raise DamagedArchiveError(str(error.details.get("path", self.places.folder)), "it is missing") from error
        return newer

    def _checked(self, path: str, status: DataStatus) -> DataStatus:
        if status.subjects != self.subjects or status.generation != self.places.generation(path):
            raise DamagedArchiveError(path, "it is the data status of something else")
        return status

    def _check(self, status: DataStatus, partition: int, segments: list[SegmentDescription]) -> None:
        path = self.places.status(status.generation)
        if any(segment.partition != partition for segment in segments) or (segments and segments[0].first != 1):
            raise DamagedArchiveError(path, f"the segments of partition {partition} do not begin with its first commit")
        try:
            ends = check_chain(segments, status.epoch, len(status.partitions))
        except SnapshotError as error:
            raise _damaged(path, error) from error
        if ends[partition] != status.partitions[partition].last:
            raise DamagedArchiveError(path, f"the segments of partition {partition} end at {ends[partition]}")


def _taken(messages: Iterator[RawMessage]) -> list[RawMessage]:
    return [*islice(messages, _BATCH)]


def _damaged(path: str, error: SnapshotError) -> DamagedArchiveError:
    line = f"line {error.line}: " if error.line else ""
    return DamagedArchiveError(path, f"{line}{error.problem}")
