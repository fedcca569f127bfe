"""The references of a restart whose gateway was killed before its run: they go after an hour, and nothing else does."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runstream.database import Database
from runstream.events.run import RunCreated
from runstream.ids import new_id
from runstream.objects import PosixObjects, paths
from runstream.objects.port import Object
from runstream.objects.references import GRACE, SharedObjects
from runstream.projections.store import ProjectionStore, load_partition
from runstream.retention.checking import ObjectsCheck, ObjectsReport
from runstream.retention.uncreated import UncreatedRuns
from tests.log.memory import MemoryLog
from tests.projections.playing import folded, migrated, played
from tests.projections.test_fsck import logged

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD = GRACE + timedelta(seconds=1)


async def checked(run_log: MemoryLog, stored: Stored, database: Database) -> ObjectsReport:
    return await ObjectsCheck(run_log, stored.objects, database).run()


class Stored:
    """Objects below a folder, whose age a test chooses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = PosixObjects(folder)

    async def put(self, path: str, age: timedelta = OLD) -> None:
        await self.objects.write_all({path: b""})
        at = (NOW - age).timestamp()
        os.utime(self.folder / "data" / path, (at, at))

    async def paths(self) -> set[str]:
        return {found.path async for found in self.objects.list()}


async def test_references_of_runs_that_were_never_created_go_and_no_other(
    tmp_path: Path, database_url: str, database_schema: str
) -> None:
    world = played(1, settled=True)
    run_log = await logged(world)
    firsts = [at for at, one in enumerate(world.log) if isinstance(one.commit.events[0], RunCreated)]
    half, late = firsts[-1], world.log[firsts[-1]].commit.address.id
    before = {one.commit.address.id for one in world.log[:half]}
    task = next(one.state for one in world.truth.executor_tasks.values() if one.state.run_id in before)
    stored = Stored(tmp_path)
    async with migrated(database_url, database_schema) as database:
        await ProjectionStore(database).apply(folded(await load_partition(database, 0, 1), world.log[:half]))
        killed, under_way, other, gone = new_id(), new_id(), new_id(), new_id()
        kept = {
            paths.step_log(task.run_task_id, 0),
            paths.log_reference(task.run_task_id, task.run_id),
            paths.log_reference(task.run_task_id, late),
            paths.step_log(other, 0),
            paths.log_reference(other, killed),
        }
        young = paths.log_reference(task.run_task_id, under_way)
        stale = {
            paths.log_reference(task.run_task_id, killed),
            paths.archive_reference(gone, killed),
        }
        for path in kept | stale:
            await stored.put(path)
        await stored.put(young, GRACE / 2)

        found = await checked(run_log, stored, database)
        assert (found.uncreated, found.foreign, found.uncreated_until) == (3, 2, NOW + GRACE / 2)
        (told,) = [line for line in found.lines() if "never created" in line]
        assert told.startswith("3 references of runs being created, or never created because a gateway was killed")
        assert told.endswith("the cleaner removes what is left at 2026-01-01 00:30:00 UTC")

        cleaning = UncreatedRuns(run_log, stored.objects, database, lambda: NOW)
        assert await cleaning.remove() == NOW + GRACE / 2
        assert await stored.paths() == kept | {young}
        await stored.put(young)
        assert await cleaning.remove() is None
        assert await stored.paths() == kept
        assert (await checked(run_log, stored, database)).uncreated == 0


async def test_a_request_that_is_sent_again_keeps_its_reference(
    tmp_path: Path, database_url: str, database_schema: str
) -> None:
    world = played(2, 40)
    task, run_id, stored = new_id(), new_id(), Stored(tmp_path)
    await stored.put(reference := paths.log_reference(task, run_id))

    class Repeating(PosixObjects):
        """A storage in which the restart is requested again while the cleaner looks."""

        async def list(
            self, prefix: str = "", *, start_after: str = "", recursive: bool = True
        ) -> AsyncIterator[Object]:
            async for found in super().list(prefix, start_after=start_after, recursive=recursive):
                yield found
            await SharedObjects(stored.objects).refer(run_id, logs=[task], archives=[])

    async with migrated(database_url, database_schema) as database:
        cleaning = UncreatedRuns(await logged(world), Repeating(tmp_path), database, lambda: datetime.now(UTC))
        await cleaning.remove()
    assert await stored.paths() == {reference}
