"""Archives one epoch of a log, as the one datamanager of its generation: segments first, then the data status.

    take over -> gather -> close segments -> store them -> data status -> still ours? -> tidy -> gather ...

What is stored and not named yet is nothing; what is named is complete. So it may end at any moment, and whoever takes
over goes on behind what the data status names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from runstream.datamanager.agreement import require_agreement
from runstream.datamanager.archive import Archive
from runstream.datamanager.compaction import GRACE_SECONDS, Tidying
from runstream.datamanager.errors import ArchiveFencedError, DamagedArchiveError
from runstream.datamanager.fence import Fence
from runstream.datamanager.status import (
    FORMAT,
    CurrentEpoch,
    DataStatus,
    PartitionStatus,
    tip_of,
    written,
    written_part,
)
from runstream.errors import InternalError, NotExistError, RunstreamError
from runstream.jetstream.messaging import Progress
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
"""After its first commit a segment is closed: a second is left to store it, so that the archive is 5 behind at most."""
_FIRST_BACKOFF = 0.25
_LAST_BACKOFF = 5.0
log = structlog.get_logger()


def utc_now() -> datetime:
    """When a data status is written."""
    return datetime.now(UTC)


class Shipper:
    """Made anew for each time that a datamanager takes an archive over."""

    def __init__(
        self,
        log: ReadableLog,
        objects: ObjectStorage,
        fence: Fence,
        deployment: str,
        *,
        close_seconds: float = CLOSE_SECONDS,
        grace: float = GRACE_SECONDS,
        clock: Callable[[], datetime] = utc_now,
        progress: Progress | None = None,
    ) -> None:
        """`deployment` is the id that NATS and the database have; `progress` learns how the archive gets on."""
        self._log = log
        self._fence = fence
        self._deployment = deployment
        self._close_seconds = close_seconds
        self._clock = clock
        self._progress = Progress() if progress is None else progress
        self.archive = Archive(objects, log.subjects)
        self._tidying = Tidying(self.archive, grace=grace)
        self._untidy: set[int] = set()
        """Partitions in which something is wrong with older segments."""
        self._status: DataStatus | None = None
        self._intake: Intake | None = None
        self.began = asyncio.Event()
        """Set when the archive is taken over, and every commit from now on is archived."""
        self._finishing = asyncio.Event()

    @property
    def status(self) -> DataStatus | None:
        """The data status as it was written last; None before the archive is taken over."""
        return self._status

    async def run(self, *, current: bool = True) -> DataStatus:
        """Archive until `finish` was called; gives the last data status.

        `current`: this epoch is the one that is served. Raises ContradictionError when log and archive do not belong
        together, ArchiveFencedError when another datamanager has taken over, InternalError when storage, database or
        log fail at the beginning.
        """
        status = self._status = await self._take_over(current=current)
        intake = self._intake = Intake(self._log, status.position.sequences)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = [tasks.create_task(intake.gather(partition)) for partition in range(self._log.partitions)]
                reading.append(tasks.create_task(self._finish(intake)))
                self.began.set()
                last = False
                while not last:
                    something = await intake.due(self._close_seconds)
                    last = intake.hurried
                    if something:
                        status = await self._ship(intake, status)
                    if not last:
                        status = await self._tidied(intake, status)
                for task in reading:
                    task.cancel()
        finally:
            intake.forget_lag()
        return self._status

    def finish(self) -> None:
        """Have `run` archive what the log has now, and return."""
        self._finishing.set()

    def positions(self) -> dict[int, int]:
        """How far each partition is archived."""
        return dict(enumerate(self._status.position.sequences)) if self._status is not None else {}

    async def _finish(self, intake: Intake) -> None:
        await self._finishing.wait()
        await intake.reached([await self._log.end(partition) for partition in range(self._log.partitions)])
        await intake.hurry()

    async def _take_over(self, *, current: bool) -> DataStatus:
        generations = await self.archive.generations()
        generation = await self._fence.take(generations[-1] if generations else 0)
        # Read only now: whoever had the archive before wrote nothing that counts after the line above.
        found = await self.archive.find_status()
        if found is None:
            found = self._new(generation)
        elif found.generation >= generation:
            raise ArchiveFencedError(generation)
        else:
            await require_agreement(self._log, found, self._deployment, self.archive.places.folder)
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
        subjects = self._log.subjects
        return DataStatus(
            deployment=self._deployment,
            namespace=subjects.namespace,
            service=subjects.service,
            epoch=subjects.epoch,
            generation=generation,
            serial=0,
            written_at=self._clock(),
            partitions=(PartitionStatus(),) * self._log.partitions,
        )

    async def _sweep(self, status: DataStatus) -> None:
        """Remove what those before have left."""
        try:
            swept = await self._tidying.sweep(status)
        except RunstreamError as error:
            log.warning("what is left over in the archive stays", action="archive_not_swept", error=str(error))
            return
        if swept:
            log.info("removed what was left over in the archive", action="archive_swept", objects=swept)

    async def _name_current(self, status: DataStatus) -> None:
        named = CurrentEpoch(format=FORMAT, deployment=status.deployment, epoch=status.epoch)
        try:
            before = await self.archive.current()
        except DamagedArchiveError:  # it is written anew
            before = None
        if before != named:
            await self.archive.objects.write(
                self.archive.places.current, BytesSource(written_part(named)), persist=True
            )

    async def _ship(self, intake: Intake, status: DataStatus) -> DataStatus:
        """Archive what was gathered; tried again until it is done."""
        begun = time.perf_counter()
        before = status.position.sequences
        contents: dict[str, bytes] = {}
        for taken in intake.take():
            partition = status.partitions[taken.partition]
            segment = await asyncio.to_thread(taken.draft.compress, partition.last_sha256)
            contents[self.archive.places.segment(segment.description)] = segment.data
            status = status.at(taken.partition, partition.behind(segment.description, tip_of(taken.last)))
        status = await self._persisted(intake, status, contents)
        await intake.archived(status.position.sequences)
        ARCHIVE_DURATION.record(time.perf_counter() - begun)
        for number, (old, new) in enumerate(zip(before, status.position.sequences, strict=True)):
            ARCHIVED_COMMITS.add(new - old, str(number))
        return status

    async def _persisted(self, intake: Intake, status: DataStatus, contents: Mapping[str, bytes]) -> DataStatus:
        backoff = _FIRST_BACKOFF
        while True:
            try:
                return await self._write(status, contents)
            except InternalError as error:
                intake.note_lag()
                self._progress.failed(str(error))
                log.warning(
                    "the archive waits for object storage or database",
                    action="archive_waits",
                    error=str(error),
                    seconds=backoff,
                )
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LAST_BACKOFF)

    async def _write(self, status: DataStatus, contents: Mapping[str, bytes]) -> DataStatus:
        """Store segments, then the data status that names them. Raises ArchiveFencedError when it does not hold."""
        serial = self._status.serial + 1 if self._status is not None else 0
        status = replace(status, serial=serial, written_at=self._clock())
        objects = self.archive.objects
        if contents:
            await objects.write_all(contents)
        await objects.write(self.archive.places.status(status.generation), BytesSource(written(status)), persist=True)
        if not await self._fence.holds(status.generation):
            raise ArchiveFencedError(status.generation)
        self._status = status
        self._progress.moved(dict(enumerate(status.position.sequences)))
        self._tidying.written()
        ARCHIVED_BYTES.add(sum(map(len, contents.values())))
        return status

    async def _tidied(self, intake: Intake, status: DataStatus) -> DataStatus:
        """The status with what could be merged; it is written with what is archived next."""
        for partition in range(self._log.partitions):
            try:
                while partition not in self._untidy and not intake.pressing:
                    tidied = await self._tidying.tidied(status, partition)
                    if tidied is None:
                        break
                    status = tidied
            except RunstreamError as error:
                # A storage that fails may do it the next time; an object that is damaged or gone stays so.
                if isinstance(error, DamagedArchiveError | NotExistError):
                    self._untidy.add(partition)
                log.warning(
                    "small segments stay as they are",
                    action="archive_not_tidied",
                    partition=partition,
                    error=str(error),
                )
        try:
            await self._tidying.delete_due()
        except InternalError as error:
            log.warning("what is left over in the archive stays", action="archive_not_swept", error=str(error))
        return status


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
