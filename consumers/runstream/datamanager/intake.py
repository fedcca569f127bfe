"""What was read of the log and is not archived yet: one draft a partition, bounded in memory.

It is due when a draft is full, or some seconds after the first commit that is in any of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from runstream.log.port import RawMessage
from runstream.snapshots.segments import MAX_BYTES, SegmentDraft, SegmentWriter
from runstream.snapshots.writing import ReadableLog
from runstream.telemetry.metrics import ARCHIVE_LAG_COMMITS, ARCHIVE_LAG_SECONDS

_BATCH = 100
"""Turning a commit into a line takes 10 microseconds: others get their turn after a millisecond."""
_MEMORY_BYTES = 64 << 20
"""Of the drafts of all partitions, once; as much again while they are stored."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What was gathered of one partition."""

    partition: int
    draft: SegmentDraft
    last: RawMessage
    """The last commit in it."""


@dataclass(slots=True)
class _Gathered:
    writer: SegmentWriter
    read: int
    """The last sequence that was read."""
    archived: int
    """The last sequence that is archived."""
    pending: int = 0
    """How many the log has behind what was read."""
    begun: float = 0.0
    """When the first commit of the draft was stored, in seconds since 1970."""
    oldest: float = 0.0
    """The same of the first commit that is not archived."""
    last: RawMessage | None = None


class Intake:
    """Gathers the commits of all partitions."""

    def __init__(self, log: ReadableLog, after: Sequence[int]) -> None:
        """`after` has the last sequence of each partition that is archived already."""
        self._log = log
        room = min(MAX_BYTES, _MEMORY_BYTES // len(after))
        self._gathered = [
            _Gathered(SegmentWriter(log.subjects.epoch, partition, max_bytes=room), at, at)
            for partition, at in enumerate(after)
        ]
        self._since: float | None = None
        """When the first commit of all that is gathered came, by the event loop's clock."""
        self.hurried = False
        """Whether nothing more is waited for."""
        self._changed = asyncio.Condition()

    async def gather(self, partition: int) -> None:
        """Read a partition until cancelled; waits while its draft is full."""
        gathered = self._gathered[partition]
        async with self._log.read(partition, gathered.read) as reader:
            while True:
                for message in await reader.next_batch(_BATCH):
                    if gathered.writer.full:
                        await self._room(gathered)
                    self._add(gathered, message)
                gathered.pending = reader.pending()
                self.note_lag()
                async with self._changed:
                    self._changed.notify_all()
                await asyncio.sleep(0)  # a reader that has more ready does not wait

    async def due(self, seconds: float) -> bool:
        """Wait until something is to be archived; False when there is nothing, and nothing more is waited for."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._since is not None or self.hurried)
            if self._since is None:
                return False
            try:
                async with asyncio.timeout_at(self._since + seconds):
                    await self._changed.wait_for(lambda: self.pressing)
            except TimeoutError:
                pass  # which is the other reason to archive it
        return True

    @property
    def pressing(self) -> bool:
        """Whether what is gathered is to be archived at once."""
        return self.hurried or any(gathered.writer.full for gathered in self._gathered)

    def take(self) -> list[Taken]:
        """What was gathered of each partition; gathering begins anew."""
        taken = [
            Taken(partition, gathered.writer.take(), gathered.last)
            for partition, gathered in enumerate(self._gathered)
            if gathered.last is not None and not gathered.writer.empty
        ]
        self._since = None
        return taken

    async def archived(self, ends: Sequence[int]) -> None:
        """All up to these sequences is archived: there is room for more."""
        for gathered, end in zip(self._gathered, ends, strict=True):
            gathered.archived, gathered.oldest = end, gathered.begun
        self.note_lag()
        async with self._changed:
            self._changed.notify_all()

    async def reached(self, ends: Sequence[int]) -> None:
        """Wait until every partition was read up to its end, as it was given."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: all(gathered.read >= end for gathered, end in zip(self._gathered, ends, strict=True))
            )

    async def hurry(self) -> None:
        """From now on archive at once what is gathered, and wait for nothing more."""
        async with self._changed:
            self.hurried = True
            self._changed.notify_all()

    def note_lag(self) -> None:
        """Say how far the archive is behind."""
        now = time.time()
        for partition, gathered in enumerate(self._gathered):
            behind = gathered.read + gathered.pending - gathered.archived
            seconds = max(now - gathered.oldest, 0.0) if gathered.read > gathered.archived else 0.0
            ARCHIVE_LAG_COMMITS.set(behind, str(partition))
            ARCHIVE_LAG_SECONDS.set(seconds, str(partition))

    def forget_lag(self) -> None:
        """Say nothing about it any more: somebody else archives."""
        for partition in range(len(self._gathered)):
            for gauge in (ARCHIVE_LAG_COMMITS, ARCHIVE_LAG_SECONDS):
                gauge.forget(str(partition))

    async def _room(self, gathered: _Gathered) -> None:
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: not gathered.writer.full)

    def _add(self, gathered: _Gathered, message: RawMessage) -> None:
        if gathered.writer.empty:
            gathered.begun = message.stored_at.timestamp()
            if gathered.read == gathered.archived:
                gathered.oldest = gathered.begun
            if self._since is None:
                self._since = asyncio.get_running_loop().time()
        gathered.writer.add(message)
        gathered.read, gathered.last = message.position.sequence, message
