"""References of runs that were never created: a restart stores them first, and its gateway was killed before the run.

Nothing says that this has happened, so all references are listed again every hour; none is removed before it is an hour
old (`GRACE`), nor while it alone keeps data: that is of another epoch, or goes with the release of its run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from datetime import datetime

import structlog
from sqlalchemy import select

from runstream import tables
from runstream.counting import counted
from runstream.database.database import Database
from runstream.database.rows import any_of
from runstream.errors import BadRequestError, NotExistError
from runstream.log.port import Log
from runstream.objects import paths
from runstream.objects.port import Object, ObjectStorage
from runstream.objects.references import GRACE, Shared, shared_of
from runstream.subjects import Address

_BATCH = 1000
log = structlog.get_logger()


class UncreatedRuns:
    """The removal of references of runs that were never created."""

    def __init__(self, run_log: Log, objects: ObjectStorage, database: Database, clock: Callable[[], datetime]) -> None:
        self._log = run_log
        self._objects = objects
        self._database = database
        self._clock = clock

    async def run(self) -> None:
        """Remove them when they are old enough, until cancelled. Raises InternalError."""
        while True:
            due = await self.remove()
            left = GRACE if due is None else min(due - self._clock(), GRACE)
            await asyncio.sleep(max(left.total_seconds(), 1.0))

    async def remove(self) -> datetime | None:
        """Remove those that are old enough; return when the next one is, or None.

        Raises InternalError when log, storage or database fail; it can then be repeated.
        """
        now, removed, due = self._clock(), 0, None
        async for references in self._references():
            known = await self._projected({_run_of(found.path) for found in references})
            for found in references:
                if _run_of(found.path) in known:
                    continue
                if (at := found.modified + GRACE) > now:
                    due = min(due or at, at)
                else:
                    removed += await self._remove(found.path, now)
        if removed:
            log.info(
                f"Removed {counted(removed, 'reference')} of runs that were never created",
                action="uncreated_references_removed",
                references=removed,
            )
        return due

    async def _references(self) -> AsyncIterator[list[Object]]:
        batch: list[Object] = []
        for folder in (paths.LOGS, paths.ARCHIVES):
            async for found in self._objects.list(f"{folder}/"):
                with suppress(BadRequestError):  # fsck reports other paths
                    if found.path.startswith(shared_of(found.path).references):
                        batch.append(found)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    async def _projected(self, runs: Collection[str]) -> set[str]:
        """Return those of the runs that have rows; the rows may be behind the log."""
        asked = select(tables.runs.c.id).where(tables.runs.c.id == any_of(runs))
        async with self._database.snapshot() as transaction:
            return {row["id"] for row in await transaction.rows(asked)}

    async def _remove(self, path: str, now: datetime) -> bool:
        """Remove a reference unless its run is in the log, or it alone keeps data."""
        shared, run_id = shared_of(path), _run_of(path)
        if await self._is_in_log(run_id) or not await self._is_spare(shared):
            return False
        try:
            if (await self._objects.stat(path)).modified + GRACE > now:  # a request that was sent again
                return False
            await self._objects.delete(path)
        except NotExistError:
            return False
        if await self._is_in_log(run_id):  # its gateway was stopped for an hour, and goes on
            await self._objects.write_all({path: b""})
            return False
        return True

    async def _is_spare(self, shared: Shared) -> bool:
        """Return whether a run that has rows refers to the data, or there is none."""
        others = [found async for found in self._objects.list(shared.references)]
        if await self._projected({_run_of(found.path) for found in others}):
            return True
        async for _ in self._objects.list(shared.data):
            return False
        return True

    async def _is_in_log(self, run_id: str) -> bool:
        """Return whether a partition has commits of the run; its group, and so its partition, is not known."""
        for partition in range(self._log.partitions):
            try:
                if await self._log.last(Address(partition, "run", run_id)) is not None:
                    return True
            except BadRequestError:  # it cannot be read
                return True
        return False


def _run_of(reference: str) -> str:
    return reference.rsplit("/", 1)[1]
