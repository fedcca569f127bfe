"""Keeps the archive small: merges small segments, moves older ones into lists, deletes obsolete objects.

Nothing changes in place. A merged segment is a new object, which the next data status names; its parts are deleted once
no data status names them. Each segment is merged about as often as the archive grows eightfold.

Only the datamanager whose data status is confirmed as the last one deletes, and only objects that no data status names.
Readers have a grace period, and find merged segments by the newer data status.
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
    encode,
)
from runstream.errors import NotExistError
from runstream.snapshots.segments import MAX_BYTES, MAX_COMMITS, SegmentDescription, merged
from runstream.telemetry.metrics import ARCHIVED_BYTES

GRACE_SECONDS = 60.0
MERGE = 8
"""Number of segments that are merged into one."""
MERGE_FROM = 16
"""Number of a partition's segments in the data status at which merging starts."""
LIST = 16
"""Number of segments that are moved into a list."""
LIST_FROM = 32
"""Number of a partition's segments, too large to be merged, at which moving into a list starts."""
LIST_SEGMENTS = 512
"""Number of segments at which a list is full."""
log = structlog.get_logger()


class Compaction:
    """The compaction of one archive, by its datamanager."""

    def __init__(self, archive: Archive, *, grace: float = GRACE_SECONDS) -> None:
        """`grace` is the time in seconds for which objects stay after the data status has dropped them."""
        self._archive = archive
        self._grace = grace
        self._superseded: list[str] = []
        """Paths that the next data status drops."""
        self._obsolete: deque[tuple[float, str]] = deque()
        """Paths that no data status names, with the time of their deletion."""

    async def compact(self, status: DataStatus, partition: int) -> DataStatus | None:
        """Merge segments or extend a list; return the new status, None if there is nothing to do.

        The new object is stored, but valid only once the status is. Raises DamagedArchiveError, NotExistError,
        InternalError.
        """
        named = status.partitions[partition]
        chosen = to_merge(named.segments)
        if chosen is not None:
            return status.with_partition(partition, await self._merged(named, chosen))
        if len(named.segments) >= LIST_FROM:
            return status.with_partition(partition, await self._listed(status, partition, LIST))
        return None

    def confirm(self) -> None:
        """Schedule the deletion of the dropped objects: the new status is valid."""
        due = asyncio.get_running_loop().time() + self._grace
        self._obsolete.extend((due, path) for path in self._superseded)
        self._superseded.clear()

    async def delete_due(self) -> None:
        """Delete the obsolete objects whose grace period is over. Raises InternalError."""
        now = asyncio.get_running_loop().time()
        while self._obsolete and self._obsolete[0][0] <= now:
            await self._delete(self._obsolete[0][1])
            self._obsolete.popleft()

    async def sweep(self, status: DataStatus) -> int:
        """Delete all objects of the epoch that this valid status does not name; return their number."""
        named = await self._named(status)
        found = [each.path async for each in self._archive.objects.list(self._archive.paths.folder)]
        obsolete = [path for path in found if path not in named]
        for path in obsolete:
            await self._delete(path)
        return len(obsolete)

    async def _merged(self, named: PartitionStatus, chosen: range) -> PartitionStatus:
        paths = self._archive.paths
        before, after = named.segments[: chosen.start], named.segments[chosen.stop :]
        parts = [await self._archive.segment(named.segments[at]) for at in chosen]
        one = await asyncio.to_thread(merged, parts)
        await self._store(paths.segment(one.description), one.data)
        self._superseded += [paths.segment(part.description) for part in parts]
        following = tuple(_chained(one.description, after))
        log.debug(
            "merged small segments",
            action="segments_merged",
            partition=one.description.partition,
            first=one.description.first,
            last=one.description.last,
        )
        return replace(named, segments=(*before, one.description, *following))

    async def _listed(self, status: DataStatus, partition: int, count: int) -> PartitionStatus:
        named, paths = status.partitions[partition], self._archive.paths
        moved, kept = named.segments[:count], named.segments[count:]
        last = await self._archive.index(partition, named.index) if named.index is not None else None
        if last is not None and named.index is not None and len(last.segments) + count <= LIST_SEGMENTS:
            index = replace(last, segments=(*last.segments, *moved))
            self._superseded.append(paths.index(partition, named.index))
        else:
            index = SegmentIndex(
                format=FORMAT, epoch=status.epoch, partition=partition, previous=named.index, segments=moved
            )
        content = encode(index)
        reference = IndexReference(
            first=index.segments[0].first,
            last=index.segments[-1].last,
            segments=len(index.segments),
            last_sha256=index.segments[-1].sha256,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        await self._store(paths.index(partition, reference), content)
        return replace(named, index=reference, segments=kept)

    async def _named(self, status: DataStatus) -> set[str]:
        paths = self._archive.paths
        named = {paths.status(status.generation)}
        for partition, found in enumerate(status.partitions):
            named.update(map(paths.segment, await self._archive.segments(status, partition)))
            reference = found.index
            while reference is not None:
                named.add(paths.index(partition, reference))
                reference = (await self._archive.index(partition, reference)).previous
        return named

    async def _store(self, path: str, content: bytes) -> None:
        await self._archive.objects.write_all({path: content})
        ARCHIVED_BYTES.add(len(content), self._archive.subjects.service)

    async def _delete(self, path: str) -> None:
        with contextlib.suppress(NotExistError):  # deleted already
            await self._archive.objects.delete(path)


def to_merge(segments: Sequence[SegmentDescription]) -> range | None:
    """Return the adjacent segments to merge, those with the fewest bytes; None if there are too few."""
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


def _chained(before: SegmentDescription, segments: Iterable[SegmentDescription]) -> Iterable[SegmentDescription]:
    """Link the segments to a new predecessor: the link is in the description, not in the segment."""
    for segment in segments:
        yield replace(segment, previous=before.sha256)
        before = segment
