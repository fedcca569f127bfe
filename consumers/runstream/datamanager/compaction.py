"""Keeping the archive small: many small segments become few, older ones are listed apart, what is left over goes.

Only what no data status names is deleted, and only by the datamanager whose data status is known to be the last one.
Whoever reads the archive meanwhile has a grace, and finds what was merged by the newer data status.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

import structlog

from runstream.datamanager.archive import Archive
from runstream.datamanager.status import (
    FORMAT,
    DataStatus,
    IndexReference,
    PartitionStatus,
    SegmentIndex,
    written_part,
)
from runstream.errors import NotExistError
from runstream.snapshots.segments import MAX_BYTES, MAX_COMMITS, SegmentDescription, merged
from runstream.telemetry.metrics import ARCHIVED_BYTES

GRACE_SECONDS = 60.0
log = structlog.get_logger()


class Tidying:
    """What one datamanager does beside archiving."""

    def __init__(self, archive: Archive, *, grace: float = GRACE_SECONDS) -> None:
        """`grace` is how long (in seconds) objects are kept after the data status has named them last."""
        self._archive = archive
        self._grace = grace
        self._superseded: list[str] = []
        """What the next data status will not name any more."""
        self._left: deque[tuple[float, str]] = deque()
        """What no data status names any more, and when it is deleted."""

    async def tidied(self, status: DataStatus, partition: int) -> DataStatus | None:
        """The status with one merge, or one longer list, whose object is stored; None when nothing is to be done.

        Nothing of it holds before it is written. Raises DamagedArchiveError, NotExistError, InternalError.
        """
        named = status.partitions[partition]
        where = to_merge(named.segments)
        if where is not None:
            return status.at(partition, await self._merged(named, where))
        count = to_list(named.segments)
        if count:
            return status.at(partition, await self._listed(status, partition, count))
        return None

    def written(self) -> None:
        """The status that came of it holds: what it does not name may go when the grace is over."""
        due = asyncio.get_running_loop().time() + self._grace
        self._left.extend((due, path) for path in self._superseded)
        self._superseded.clear()

    async def delete_due(self) -> None:
        """Delete what is left over and whose grace is over. Raises InternalError."""
        now = asyncio.get_running_loop().time()
        while self._left and self._left[0][0] <= now:
            await self._delete(self._left[0][1])
            self._left.popleft()

    async def sweep(self, status: DataStatus) -> int:
        """Delete everything of the epoch that this status, which holds, does not name; gives how many objects."""
        named = await self._named(status)
        found = [each.path async for each in self._archive.objects.list(self._archive.places.folder)]
        left_over = [path for path in found if path not in named]
        for path in left_over:
            await self._delete(path)
        return len(left_over)

    async def _merged(self, named: PartitionStatus, where: range) -> PartitionStatus:
        places = self._archive.places
        before, after = named.segments[: where.start], named.segments[where.stop :]
        parts = [await self._archive.segment(named.segments[at]) for at in where]
        one = await asyncio.to_thread(merged, parts)
        await self._store(places.segment(one.description), one.data)
        self._superseded += [places.segment(part.description) for part in parts]
        following = tuple(_chained(one.description, after))
        log.debug(
            "small segments became one",
            action="segments_merged",
            partition=one.description.partition,
            first=one.description.first,
            last=one.description.last,
        )
        return replace(named, segments=(*before, one.description, *following))

    async def _listed(self, status: DataStatus, partition: int, count: int) -> PartitionStatus:
        named, places = status.partitions[partition], self._archive.places
        moved, kept = named.segments[:count], named.segments[count:]
        last = await self._archive.index(partition, named.index) if named.index is not None else None
        if last is not None and named.index is not None and len(last.segments) + count <= LIST_SEGMENTS:
            index = replace(last, segments=(*last.segments, *moved))
            self._superseded.append(places.index(partition, named.index.first, named.index.last, named.index.sha256))
        else:
            index = SegmentIndex(
                format=FORMAT, epoch=status.epoch, partition=partition, previous=named.index, segments=moved
            )
        content = written_part(index)
        reference = IndexReference(
            first=index.segments[0].first,
            last=index.segments[-1].last,
            segments=len(index.segments),
            last_sha256=index.segments[-1].sha256,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        await self._store(places.index(partition, reference.first, reference.last, reference.sha256), content)
        return replace(named, index=reference, segments=kept)

    async def _named(self, status: DataStatus) -> set[str]:
        places = self._archive.places
        named = {places.status(status.generation)}
        for partition, found in enumerate(status.partitions):
            named.update(map(places.segment, await self._archive.segments(status, partition)))
            reference = found.index
            while reference is not None:
                named.add(places.index(partition, reference.first, reference.last, reference.sha256))
                reference = (await self._archive.index(partition, reference)).previous
        return named

    async def _store(self, path: str, content: bytes) -> None:
        await self._archive.objects.write_all({path: content})
        ARCHIVED_BYTES.add(len(content))

    async def _delete(self, path: str) -> None:
        with contextlib.suppress(NotExistError):  # which is what was wanted
            await self._archive.objects.delete(path)


def _chained(before: SegmentDescription, segments: Iterable[SegmentDescription]) -> Iterable[SegmentDescription]:
    """The segments, the first of which follows another one now: a segment itself does not say what it follows."""
    for segment in segments:
        yield replace(segment, previous=before.sha256)
        before = segment


MERGE = 8
"""How many become one."""
MERGE_FROM = 16
"""How many the data status names of a partition before that is done."""
LIST = 16
"""How many are moved into a list."""
LIST_FROM = 32
"""How many the data status names of a partition before that is done: those that are too large to be merged."""
LIST_SEGMENTS = 512
"""How many a list may have before another one is begun."""


def to_merge(segments: Sequence[SegmentDescription]) -> range | None:
    """Which neighbours become one: those whose bytes together are the fewest; None when it is not worth it."""
    if len(segments) < MERGE_FROM:
        return None
    best: tuple[int, int] | None = None
    for first in range(len(segments) - MERGE + 1):
        parts = segments[first : first + MERGE]
        size = sum(part.bytes for part in parts)
        if (
            size <= MAX_BYTES
            and sum(part.commits for part in parts) <= MAX_COMMITS
            and (best is None or size < best[0])
        ):
            best = size, first
    return range(best[1], best[1] + MERGE) if best is not None else None


def to_list(segments: Sequence[SegmentDescription]) -> int:
    """How many of the oldest belong into a list now."""
    return LIST if len(segments) >= LIST_FROM else 0
