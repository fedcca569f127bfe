"""Archives one epoch of a log, as the one datamanager of its generation: segments first, then the data status.

    take over -> gather -> close segments -> store them -> write data status -> check fence -> compact -> gather ...

An object counts only once the data status names it, and the data status names complete objects only. So the process may
die at any moment; its successor continues after the last named segment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog

from runstream.backoff import Backoff, retry
from runstream.datamanager.agreement import require_agreement
from runstream.datamanager.archive import Archive
from runstream.datamanager.compaction import GRACE_SECONDS, Compaction
from runstream.datamanager.errors import ArchiveFencedError, DamagedArchiveError
from runstream.datamanager.fence import Fence
from runstream.datamanager.status import (
    FORMAT,
    CurrentEpoch,
    DataStatus,
    PartitionStatus,
    encode,
    encode_status,
)
from runstream.errors import InternalError, NotExistError, RunstreamError
from runstream.jetstream.messaging import ConsumerProgress
from runstream.lifecycle import BackgroundTasks
from runstream.log.port import RawMessage, ReadableLog
from runstream.objects.port import BytesSource, ObjectStorage
from runstream.snapshots.segments import MAX_BYTES, SegmentDraft, SegmentWriter
from runstream.telemetry.metrics import (
    ARCHIVE_DURATION,
    ARCHIVE_LAG_COMMITS,
    ARCHIVE_LAG_SECONDS,
    ARCHIVED_BYTES,
    ARCHIVED_COMMITS,
)

CLOSE_SECONDS = 4.0
"""Age of a segment's first commit at which it is closed; one more second to store it keeps the archive within 5."""
_BATCH = 100
"""Encoding a commit takes 10 microseconds: a batch holds up the event loop for a millisecond."""
_MEMORY_BYTES = 64 << 20
"""Bytes of the drafts of all partitions; as much again while they are stored."""
_BACKOFF = Backoff(0.25, 5.0)
log = structlog.get_logger()


@dataclass(eq=False)
class Shipper:
    """One term of a datamanager, from taking over the archive to its end."""

    log: ReadableLog
    objects: ObjectStorage
    fence: Fence
    deployment: str
    """Its id in NATS and the database."""
    close_seconds: float = CLOSE_SECONDS
    grace: float = GRACE_SECONDS
    progress: ConsumerProgress = field(default_factory=ConsumerProgress)
    """Receives the archived positions and errors."""

    def __post_init__(self) -> None:
        self.archive = Archive(self.objects, self.log.subjects)
        self._compaction = Compaction(self.archive, grace=self.grace)
        self._damaged: set[int] = set()
        """Partitions with damaged older segments, which are not compacted."""
        self.status: DataStatus | None = None
        """The last confirmed data status; None before the archive is taken over."""
        self.began = asyncio.Event()
        """Set once the archive is taken over and new commits are archived."""
        self._finishing = asyncio.Event()

    async def run(self, *, current: bool = True) -> DataStatus:
        """Archive until `finish` is called; return the last data status.

        `current` says that this epoch is served. Raises ContradictionError when log and archive do not belong together,
        ArchiveFencedError when another datamanager has taken over, InternalError when storage, database or log fail at
        the beginning.
        """
        status = self.status = await self._take_over(current=current)
        buffer = CommitBuffer(self.log, status.position.sequences)
        try:
            async with BackgroundTasks() as background:
                for partition in range(self.log.partitions):
                    background.keep(buffer.gather(partition))
                background.once(self._finish(buffer))
                self.began.set()
                last = False
                while not last:
                    due = await buffer.due(self.close_seconds)
                    last = buffer.finishing
                    if due:
                        status = await self._ship(buffer, status)
                    if not last:
                        status = await self._compact(buffer, status)
        finally:
            buffer.forget_lag()
        return self.status

    def finish(self) -> None:
        """Let `run` archive the commits that the log has now, and return."""
        self._finishing.set()

    def positions(self) -> dict[int, int]:
        """Return the last archived sequence of each partition."""
        return dict(enumerate(self.status.position.sequences)) if self.status is not None else {}

    async def _finish(self, buffer: CommitBuffer) -> None:
        await self._finishing.wait()
        await buffer.read_up_to([await self.log.end(partition) for partition in range(self.log.partitions)])
        await buffer.finish()

    async def _take_over(self, *, current: bool) -> DataStatus:
        generations = await self.archive.generations()
        generation = await self.fence.take(generations[-1] if generations else 0)
        # Read only now: after the line above, no write of a predecessor is valid any more.
        found = await self.archive.find_status()
        if found is None:
            found = self._new(generation)
        elif found.generation >= generation:
            raise ArchiveFencedError(generation)
        else:
            await require_agreement(self.log, found, self.deployment, self.archive.paths.folder)
        # Write at once: readers take the highest generation, so from here on they ignore a predecessor's late write.
        status = await self._write(replace(found, generation=generation, serial=0), {})
        if current:
            await self._name_current(status)
        if generations:
            await self._sweep(status)
        log.info(
            "archive ownership acquired",
            action="archive_taken_over",
            epoch=status.epoch,
            generation=generation,
            position=str(status.position),
        )
        return status

    def _new(self, generation: int) -> DataStatus:
        subjects = self.log.subjects
        return DataStatus(
            deployment=self.deployment,
            namespace=subjects.namespace,
            service=subjects.service,
            epoch=subjects.epoch,
            generation=generation,
            serial=0,
            written_at=datetime.now(UTC),
            partitions=(PartitionStatus(),) * self.log.partitions,
        )

    async def _sweep(self, status: DataStatus) -> None:
        """Remove the obsolete objects of predecessors."""
        try:
            swept = await self._compaction.sweep(status)
        except RunstreamError as error:
            log.warning("cannot remove obsolete objects of the archive", action="archive_not_swept", error=str(error))
            return
        if swept:
            log.info("removed obsolete objects of the archive", action="archive_swept", objects=swept)

    async def _name_current(self, status: DataStatus) -> None:
        named = CurrentEpoch(format=FORMAT, deployment=status.deployment, epoch=status.epoch)
        try:
            before = await self.archive.current()
        except DamagedArchiveError:  # replaced below
            before = None
        if before != named:
            await self.archive.objects.write(self.archive.paths.current, BytesSource(encode(named)), persist=True)

    async def _ship(self, buffer: CommitBuffer, status: DataStatus) -> DataStatus:
        """Archive the gathered commits; retry until they are stored."""
        begun = time.perf_counter()
        before = status.position.sequences
        contents: dict[str, bytes] = {}
        for taken in buffer.take():
            partition = status.partitions[taken.partition]
            segment = await asyncio.to_thread(taken.draft.compress, partition.last_sha256)
            contents[self.archive.paths.segment(segment.description)] = segment.data
            status = status.with_partition(taken.partition, partition.with_segment(segment.description, taken.last))
        status = await self._write_with_retries(buffer, status, contents)
        await buffer.archived(status.position.sequences)
        service = self.log.subjects.service
        ARCHIVE_DURATION.record(time.perf_counter() - begun, service)
        for number, (old, new) in enumerate(zip(before, status.position.sequences, strict=True)):
            ARCHIVED_COMMITS.add(new - old, service, str(number))
        return status

    async def _write_with_retries(
        self, buffer: CommitBuffer, status: DataStatus, contents: Mapping[str, bytes]
    ) -> DataStatus:
        def note(error: InternalError, delay: float) -> None:
            buffer.note_lag()
            self.progress.failed(str(error))
            log.warning(
                "cannot write the archive: object storage or database fail; trying again",
                action="archive_waits",
                error=str(error),
                seconds=delay,
            )

        return await retry(lambda: self._write(status, contents), InternalError, _BACKOFF, note)

    async def _write(self, status: DataStatus, contents: Mapping[str, bytes]) -> DataStatus:
        """Store segments, then the data status that names them. Raises ArchiveFencedError when it is not valid."""
        serial = self.status.serial + 1 if self.status is not None else 0
        status = replace(status, serial=serial, written_at=datetime.now(UTC))
        objects = self.archive.objects
        # Segments first: a crash must not leave a data status that names objects which were never stored.
        if contents:
            await objects.write_all(contents)
        await objects.write(
            self.archive.paths.status(status.generation), BytesSource(encode_status(status)), persist=True
        )
        # A successor that took its generation before this write may have read the data status without it. Its archive
        # then continues from there, and this write is void: nothing may be deleted or reported on its account.
        if not await self.fence.holds(status.generation):
            raise ArchiveFencedError(status.generation)
        self.status = status
        self.progress.moved(dict(enumerate(status.position.sequences)))
        self._compaction.confirm()
        ARCHIVED_BYTES.add(sum(map(len, contents.values())), self.log.subjects.service)
        return status

    async def _compact(self, buffer: CommitBuffer, status: DataStatus) -> DataStatus:
        """Return the compacted status, which is written with the next segments."""
        for partition in range(self.log.partitions):
            try:
                while partition not in self._damaged and not buffer.urgent:
                    compacted = await self._compaction.compact(status, partition)
                    if compacted is None:
                        break
                    status = compacted
            except RunstreamError as error:
                # A failing storage may work the next time; a damaged or missing object stays so.
                if isinstance(error, DamagedArchiveError | NotExistError):
                    self._damaged.add(partition)
                log.warning(
                    "cannot compact the archive",
                    action="archive_not_tidied",
                    partition=partition,
                    error=str(error),
                )
        try:
            await self._compaction.delete_due()
        except InternalError as error:
            log.warning("cannot remove obsolete objects of the archive", action="archive_not_swept", error=str(error))
        return status


@dataclass(frozen=True, slots=True)
class PendingSegment:
    """A draft of one partition, taken for archiving."""

    partition: int
    draft: SegmentDraft
    last: RawMessage
    """The last commit of the draft."""


@dataclass(slots=True)
class _PartitionBuffer:
    writer: SegmentWriter
    read: int
    """Last sequence read."""
    archived: int
    """Last sequence archived."""
    pending: int = 0
    """Number of unread messages in the log."""
    begun: float = 0.0
    """Time at which the log stored the draft's first commit, in seconds since 1970."""
    oldest: float = 0.0
    """The same for the first unarchived commit."""
    last: RawMessage | None = None


class CommitBuffer:
    """The commits that are read and not archived yet: one draft for each partition, bounded in memory.

    It is due when a draft is full, or some seconds after its first commit.
    """

    def __init__(self, log: ReadableLog, after: Sequence[int]) -> None:
        """`after` has the last archived sequence of each partition."""
        self._log = log
        self._service = log.subjects.service
        room = min(MAX_BYTES, _MEMORY_BYTES // len(after))
        self._gathered = [
            _PartitionBuffer(SegmentWriter(log.subjects.epoch, partition, max_bytes=room), at, at)
            for partition, at in enumerate(after)
        ]
        self._since: float | None = None
        """Time of the first gathered commit, by the event loop's clock."""
        self.finishing = False
        """True if the buffer waits for no more commits."""
        self._changed = asyncio.Condition()

    async def gather(self, partition: int) -> None:
        """Read a partition until cancelled; wait while its draft is full."""
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
                await asyncio.sleep(0)  # a reader with messages at hand never yields to the event loop

    async def due(self, seconds: float) -> bool:
        """Wait until commits are due, `seconds` after the first; return False if it is empty and waits for no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._since is not None or self.finishing)
            if self._since is None:
                return False
            try:
                async with asyncio.timeout_at(self._since + seconds):
                    await self._changed.wait_for(lambda: self.urgent)
            except TimeoutError:
                pass  # due by age
        return True

    @property
    def urgent(self) -> bool:
        """True if the gathered commits are due at once."""
        return self.finishing or any(gathered.writer.full for gathered in self._gathered)

    def take(self) -> list[PendingSegment]:
        """Take the draft of each partition, and start new ones."""
        taken = [
            PendingSegment(partition, gathered.writer.take(), gathered.last)
            for partition, gathered in enumerate(self._gathered)
            if gathered.last is not None and not gathered.writer.empty
        ]
        self._since = None
        return taken

    async def archived(self, ends: Sequence[int]) -> None:
        """Note that the commits up to these sequences are archived, which makes room for more."""
        for gathered, end in zip(self._gathered, ends, strict=True):
            gathered.archived, gathered.oldest = end, gathered.begun
        self.note_lag()
        async with self._changed:
            self._changed.notify_all()

    async def read_up_to(self, ends: Sequence[int]) -> None:
        """Wait until every partition is read up to these sequences."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: all(gathered.read >= end for gathered, end in zip(self._gathered, ends, strict=True))
            )

    async def finish(self) -> None:
        """Make gathered commits due at once, and wait for no more."""
        async with self._changed:
            self.finishing = True
            self._changed.notify_all()

    def note_lag(self) -> None:
        """Set the metrics of the archive's lag."""
        now = time.time()
        for partition, gathered in enumerate(self._gathered):
            behind = gathered.read + gathered.pending - gathered.archived
            seconds = max(now - gathered.oldest, 0.0) if gathered.read > gathered.archived else 0.0
            ARCHIVE_LAG_COMMITS.set(behind, self._service, str(partition))
            ARCHIVE_LAG_SECONDS.set(seconds, self._service, str(partition))

    def forget_lag(self) -> None:
        """Drop the metrics of the lag: another process archives now."""
        for partition in range(len(self._gathered)):
            for gauge in (ARCHIVE_LAG_COMMITS, ARCHIVE_LAG_SECONDS):
                gauge.forget(self._service, str(partition))

    async def _room(self, gathered: _PartitionBuffer) -> None:
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: not gathered.writer.full)

    def _add(self, gathered: _PartitionBuffer, message: RawMessage) -> None:
        if gathered.writer.empty:
            gathered.begun = message.stored_at.timestamp()
            if gathered.read == gathered.archived:
                gathered.oldest = gathered.begun
            if self._since is None:
                self._since = asyncio.get_running_loop().time()
        gathered.writer.add(message)
        gathered.read, gathered.last = message.position.sequence, message
