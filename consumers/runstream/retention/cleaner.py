"""The cleaner: removes from the object storage what the log says that no run refers to any more.

It follows the commits of runs from its mark on, in each partition, and moves the mark when everything up to it is
removed. Killed at any moment, it does the rest again from the mark, which is safe; so are two cleaners at once. An
advisory lock selects the one that works.

A release that waits for a reference of an unknown run holds the mark back until that is decided.

Before it begins in an epoch, it stores the references that the log of another epoch has removed, or never had: the runs
of this one keep their data.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime

import structlog

from runstream.database.database import Database
from runstream.database.removals import begin_marks, load_marks, move_mark
from runstream.ids import new_id
from runstream.lifecycle import BackgroundTasks, Component, StrictTaskGroup, keep_running
from runstream.log.port import Log, RawMessage
from runstream.objects.caches import StoredCaches
from runstream.objects.port import ObjectStorage
from runstream.projections.ownership import PartitionOwnership
from runstream.retention.caches import CachePolicy, CacheRetention
from runstream.retention.referring import restore_references
from runstream.retention.removal import Release, Removal, release_of
from runstream.retention.uncreated import UncreatedRuns

KEEP_CACHES = CachePolicy()
MAX_CONCURRENT = 8
"""Runs whose data is removed at once."""
MARK_MESSAGES = 5000
"""Commits without a release after which the mark is moved, so that few are read again."""
log = structlog.get_logger()


class Cleaner(Component):
    """The component that removes released objects."""

    name = "cleaner"

    def __init__(
        self,
        log: Log,
        objects: ObjectStorage,
        database: Database,
        clock: Callable[[], datetime],
        caches: CachePolicy = KEEP_CACHES,
    ) -> None:
        """`caches` says which caches are kept."""
        super().__init__()
        self._caches = CacheRetention(StoredCaches(objects), caches, clock)
        self._log = log
        self._objects = objects
        self._database = database
        self._clock = clock
        self._instance = new_id()
        self._cleaning: asyncio.Task[None] | None = None
        self._positions: dict[int, int] = {}

    def positions(self) -> Mapping[int, int]:
        """Return the mark of each partition; empty while another process cleans."""
        return dict(self._positions)

    async def run(self) -> None:
        """Clean, or wait for the lock, until `stopping` is set."""
        subjects = self._log.subjects
        ownership = PartitionOwnership(
            self._database,
            namespace=subjects.namespace,
            service=f"{subjects.service}/{subjects.epoch}/cleaner",
            partitions=1,
            instance=self._instance,
            live=_alone(self._instance),
            on_acquired=self._begin,
            on_lost=self._end,
        )
        try:
            await ownership.start()
            self.started.set()
            await self.stopping.wait()
        finally:
            ownership.stop_seconds = min(ownership.stop_seconds, self.stop_seconds * 0.9)
            await ownership.stop()

    async def _begin(self, _: int) -> None:
        self._cleaning = asyncio.create_task(self._clean(), name="clean")

    async def _end(self, _: int) -> None:
        cleaning, self._cleaning = self._cleaning, None
        if cleaning is not None:
            cleaning.cancel()
            await asyncio.wait({cleaning})
        self._positions.clear()

    async def _clean(self) -> None:
        async with BackgroundTasks() as background:
            background.keep(keep_running("retention of caches", self._caches.run))
            background.keep(keep_running("cleaning", self._clean_runs))
            await asyncio.Event().wait()

    async def _clean_runs(self) -> None:
        if not await load_marks(self._database, self._log.subjects):
            await restore_references(self._log, self._objects, self._clock)
            await begin_marks(self._database, self._log.subjects, self._log.partitions)
        uncreated = UncreatedRuns(self._log, self._objects, self._database, self._clock)
        async with BackgroundTasks() as background:
            background.keep(keep_running("removal of references of runs that were never created", uncreated.run))
            for partition in range(self._log.partitions):
                cleaning = PartitionCleaning(
                    self._log, self._objects, self._database, self._clock, partition, self._positions
                )
                background.keep(keep_running(f"clean partition {partition}", cleaning.run))
            await asyncio.Event().wait()


class PartitionCleaning:
    """The cleaning of one partition."""

    def __init__(
        self,
        log: Log,
        objects: ObjectStorage,
        database: Database,
        clock: Callable[[], datetime],
        partition: int,
        positions: dict[int, int],
    ) -> None:
        self._log = log
        self._database = database
        self._clock = clock
        self._removal = Removal(log, objects, clock)
        self._partition = partition
        self._positions = positions
        self._waiting: dict[int, tuple[datetime, Release]] = {}
        """By sequence: releases to try again, and when."""

    async def run(self) -> None:
        """Remove what is released until cancelled. Raises InternalError when log, storage or database fail."""
        self._waiting.clear()
        marks = await load_marks(self._database, self._log.subjects)
        mark = read = marks.get(self._partition, 0)
        self._positions[self._partition] = mark
        runs = f"{self._log.subjects.prefix(self._partition)}.run.>"
        async with self._log.read(self._partition, mark, filters=[runs]) as reader:
            reading: asyncio.Future[list[RawMessage]] = asyncio.ensure_future(reader.next_batch())
            try:
                while True:
                    await asyncio.wait({reading}, timeout=self._seconds_left())
                    releases = self._due()
                    if reading.done():
                        messages = reading.result()
                        releases += [one for message in messages if (one := release_of(message)) is not None]
                        read = messages[-1].position.sequence
                        reading = asyncio.ensure_future(reader.next_batch())
                    await self._remove(releases)
                    reached = min(self._waiting, default=read + 1) - 1
                    if reached > mark and (releases or reached - mark >= MARK_MESSAGES):
                        await move_mark(self._database, self._log.subjects, self._partition, reached)
                        mark = self._positions[self._partition] = reached
            finally:
                reading.cancel()

    def _seconds_left(self) -> float | None:
        if not self._waiting:
            return None
        first = min(at for at, _ in self._waiting.values())
        return max((first - self._clock()).total_seconds(), 0.0)

    def _due(self) -> list[Release]:
        now = self._clock()
        return [release for at, release in self._waiting.values() if at <= now]

    async def _remove(self, releases: Sequence[Release]) -> None:
        slots = asyncio.Semaphore(MAX_CONCURRENT)

        async def remove(release: Release) -> None:
            async with slots:
                again = await self._removal.remove(release)
            self._waiting.pop(release.sequence, None)
            if again is not None:
                self._waiting[release.sequence] = (again, release)

        async with StrictTaskGroup() as tasks:
            for release in releases:
                tasks.create_task(remove(release))


async def _alone(instance: str) -> AsyncIterator[Collection[str]]:
    """Name this instance as the only live one, so that each process waits for the one lock."""
    yield {instance}
    await asyncio.Event().wait()
