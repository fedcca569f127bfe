"""Archives one epoch of a log, as the one datamanager of its generation: segments first, then the data status.

    take over -> gather -> close segments -> store them -> data status -> still ours? -> tidy -> gather ...

What is stored and not named yet is nothing; what is named is complete. So it may end at any moment, and whoever takes
over goes on behind what the data status names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from runstream.datamanager.agreement import require_agreement
from runstream.datamanager.archive import Archive
from runstream.datamanager.errors import ArchiveFencedError, DamagedArchiveError
from runstream.datamanager.fence import Fence
from runstream.datamanager.intake import Intake
from runstream.datamanager.status import (
    FORMAT,
    CurrentEpoch,
    DataStatus,
    PartitionStatus,
    tip_of,
    written,
    written_part,
)
from runstream.datamanager.tidying import GRACE_SECONDS, Tidying
from runstream.errors import InternalError, NotExistError, RunstreamError
from runstream.jetstream.progress import Progress
from runstream.objects.port import ObjectStorage
from runstream.objects.sources import BytesSource
from runstream.snapshots.writing import ReadableLog
from runstream.telemetry.metrics import ARCHIVE_DURATION, ARCHIVED_BYTES, ARCHIVED_COMMITS

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
