"""The component: one instance works and the others wait, through faults of connections and storage and new epochs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn, cast

import pytest
from sqlalchemy import text

from runstream.api import Stall
from runstream.database import Database
from runstream.datamanager.archive import Archive
from runstream.datamanager.datamanager import DataManager
from runstream.datamanager.errors import ContradictionError
from runstream.datamanager.fence import PostgresFence
from runstream.errors import InternalError
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.messaging import Questions
from runstream.objects import ObjectStorage, PosixObjects
from runstream.service.stalls import Consumed
from runstream.subjects import Subjects
from runstream.telemetry.metrics import ARCHIVE_LAG_COMMITS, ARCHIVE_LAG_SECONDS
from tests.datamanager.rig import DEPLOYMENT, archived, fill, logged, paths, same
from tests.disks import take_all
from tests.log.memory import MemoryLog
from tests.projections.playing import migrated
from tests.servers import Servers


class Several:
    """Processes with a datamanager each, over one log, one storage and one database."""

    def __init__(self, url: str, schema: str, storage: ObjectStorage) -> None:
        self.log = MemoryLog(partitions=2)
        self.storage = storage
        self.moved = asyncio.Event()
        self._url, self._schema = url, schema
        self.databases: list[Database] = []

    def one(self, name: str, *, close_seconds: float = 0.0, questions: Questions | None = None) -> DataManager:
        database = Database(self._url, self._schema, application=f"{self._schema} {name}")
        self.databases.append(database)
        return DataManager(
            lambda: self.log,
            self.storage,
            database,
            DEPLOYMENT,
            moved=self._moved,
            close_seconds=close_seconds,
            questions=questions,
        )

    async def shipped(self) -> None:
        """Wait until the archive has what the log has now."""
        ends = [await self.log.end(partition) for partition in range(self.log.partitions)]
        archive = Archive(self.storage, self.log.subjects)
        while True:
            status = await archive.find_status()
            if status is not None and list(status.position.sequences) == ends:
                return

    async def close(self) -> None:
        for database in self.databases:
            await database.close()

    async def _moved(self, epoch: int) -> None:
        while self.log.epoch == epoch:
            await self.moved.wait()
            self.moved.clear()


@asynccontextmanager
async def several(url: str, schema: str, storage: ObjectStorage) -> AsyncIterator[Several]:
    async with migrated(url, schema):
        found = Several(url, schema, storage)
        try:
            yield found
        finally:
            await found.close()


async def killed_backends(database: Database, application: str) -> None:
    kill = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE starts_with(application_name, :name)")
    async with database.snapshot() as transaction:
        await transaction.rows(kill, {"name": application})


async def test_one_works_and_another_takes_over(
    database_url: str, database_schema: str, storage: ObjectStorage
) -> None:
    async with several(database_url, database_schema, storage) as all_of_them:
        first, second = all_of_them.one("first"), all_of_them.one("second")
        await first.start()
        await fill(all_of_them.log, 5)
        while first.positions() != {0: 5, 1: 0}:
            await all_of_them.shipped()
        await second.start()
        assert second.positions() == {}
        await fill(all_of_them.log, 5, partition=1)
        await first.stop()
        assert same(await archived(all_of_them.log, storage), await logged(all_of_them.log))
        await fill(all_of_them.log, 5)
        while second.positions() != {0: 10, 1: 5}:
            await all_of_them.shipped()
        await second.stop()
        await second.stop()
        assert first.positions() == second.positions() == {}


async def test_a_lost_connection_is_a_lost_archive(
    database_url: str, database_schema: str, storage: ObjectStorage
) -> None:
    async with several(database_url, database_schema, storage) as all_of_them:
        first, second = all_of_them.one("first"), all_of_them.one("second")
        await first.start()
        await all_of_them.shipped()
        await second.start()
        await killed_backends(all_of_them.databases[1], f"{database_schema} first")
        await fill(all_of_them.log, 5)
        await all_of_them.shipped()
        while not {**first.positions(), **second.positions()}:
            await all_of_them.shipped()
        assert (await Archive(storage, all_of_them.log.subjects).status()).generation >= 2
        await asyncio.gather(first.stop(), second.stop())


class Failing:
    """A storage without room until a test frees some."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self.failed = asyncio.Event()
        self.fails = False
        self.stat, self.read, self.delete, self.list = storage.stat, storage.read, storage.delete, storage.list
        self.write, self.create = storage.write, storage.create

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        if self.fails:
            self.failed.set()
            raise InternalError("no space left on device", code="objectNotStored")
        await self._storage.write_all(contents)


async def test_a_storage_that_fails_is_waited_for(
    database_url: str, database_schema: str, storage: ObjectStorage
) -> None:
    failing = Failing(storage)
    async with several(database_url, database_schema, failing) as all_of_them:
        one = all_of_them.one("one")
        await one.start()
        await all_of_them.shipped()
        failing.fails = True
        await fill(all_of_them.log, 5)
        await failing.failed.wait()
        failing.failed.clear()
        await fill(all_of_them.log, 5)
        await failing.failed.wait()
        assert ARCHIVE_LAG_COMMITS.value("runs", "0") == 10
        assert ARCHIVE_LAG_SECONDS.value("runs", "0") > 0
        failing.fails = False
        await all_of_them.shipped()
        while ARCHIVE_LAG_COMMITS.value("runs", "0"):
            await all_of_them.shipped()
        await one.stop()
        assert same(await archived(all_of_them.log, storage), await logged(all_of_them.log))


class Told(PosixObjects):
    """A disk that says when it has refused something."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.refused = asyncio.Event()

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        try:
            await super().write_all(contents)
        except InternalError:
            self.refused.set()
            raise


class Unreadable:
    """A storage that answers nothing."""

    def __getattr__(self, name: str) -> NoReturn:
        raise InternalError("the storage does not answer", code="objectNotRead")


async def test_an_archive_without_room_stands_still_and_says_why(
    servers: Servers, database_url: str, database_schema: str, small_disk: Path
) -> None:
    storage = Told(small_disk / "objects")
    async with (
        several(database_url, database_schema, storage) as all_of_them,
        nats_connection(servers.nats_url, "test") as client,
    ):
        all_of_them.log.subjects = Subjects(servers.namespace, "runs", 1)
        questions, database = Questions(client), Database(database_url, database_schema, pool_size=1)
        all_of_them.databases.append(database)

        async def stalls(objects: ObjectStorage = storage) -> list[Stall]:
            consumed = Consumed(all_of_them.log, database, questions, objects)
            found = await consumed.stalls(datetime.now(UTC) + timedelta(minutes=2))
            return [stall for stall in found if stall.component == "archive"]

        one = all_of_them.one("one", questions=questions)
        await one.start()
        await fill(all_of_them.log, 5)
        await all_of_them.shipped()
        assert await stalls() == []
        take_all(small_disk / "ballast")
        await fill(all_of_them.log, 500, name=os.urandom(2000).hex())
        await storage.refused.wait()
        while not (found := await stalls()) or "No space left" not in found[0].why:
            continue  # each look asks the datamanager
        (stall,) = found
        assert (stall.kind, stall.partition, stall.position, stall.commits) == ("behind", 0, "1/0/6", 500)
        assert [one.position for one in await stalls(cast("ObjectStorage", Unreadable()))] == ["1/0/6"]
        (small_disk / "ballast").unlink()
        await all_of_them.shipped()
        while await stalls():
            continue
        await one.stop()
        await fill(all_of_them.log, 1)
        assert [(one.position, one.why) for one in await stalls()] == [("1/0/506", "no datamanager has it")]


async def test_a_full_disk_is_waited_for(database_url: str, database_schema: str, small_disk: Path) -> None:
    storage = Told(small_disk / "objects")
    async with several(database_url, database_schema, storage) as all_of_them:
        one = all_of_them.one("one")
        await one.start()
        await fill(all_of_them.log, 5)
        await all_of_them.shipped()
        archive = Archive(storage, all_of_them.log.subjects)
        before = await archive.status()
        take_all(small_disk / "ballast")
        await fill(all_of_them.log, 500, name=os.urandom(2000).hex())
        await storage.refused.wait()
        assert one.positions()[0] < await all_of_them.log.end(0)
        (small_disk / "ballast").unlink()
        await all_of_them.shipped()
        assert (await archive.status()).generation == before.generation  # it waits, and does not begin anew
        await one.stop()
        assert same(await archived(all_of_them.log, storage), await logged(all_of_them.log))
        left = [path.name for path in (small_disk / "objects").rglob("*") if path.is_file()]
        assert len(left) == len(await paths(storage, ""))


async def test_a_contradiction_ends_it(database_url: str, database_schema: str, storage: ObjectStorage) -> None:
    async with several(database_url, database_schema, storage) as all_of_them:
        one = all_of_them.one("one")
        await one.start()
        await fill(all_of_them.log, 5)
        await all_of_them.shipped()
        await one.stop()
        all_of_them.log = MemoryLog(partitions=2)
        another = all_of_them.one("another")
        await another.start()
        with pytest.raises(ContradictionError, match="gone back in time"):
            await another.wait()


async def test_it_goes_on_in_another_epoch(database_url: str, database_schema: str, storage: ObjectStorage) -> None:
    async with several(database_url, database_schema, storage) as all_of_them:
        one = all_of_them.one("one", close_seconds=3600.0)
        await one.start()
        old = all_of_them.log
        while not one.positions():
            await Archive(storage, old.subjects).generations()
        await fill(old, 5)
        all_of_them.log = MemoryLog(partitions=3)
        all_of_them.log.subjects = Subjects("memory", "runs", 2)
        await fill(all_of_them.log, 7, partition=2)
        all_of_them.moved.set()
        while (current := await Archive(storage, old.subjects).current()) is None or current.epoch != 2:
            await Archive(storage, old.subjects).generations()
        assert same(await archived(old, storage), await logged(old))
        await one.stop()
        assert same(await archived(all_of_them.log, storage), await logged(all_of_them.log))


async def test_generations_only_grow(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        fence = PostgresFence(database, "runs", 1)
        assert not await fence.holds(1)
        assert [await fence.take(0), await fence.take(0), await fence.take(7), await fence.take(3)] == [1, 2, 8, 9]
        assert (await fence.holds(9), await fence.holds(8)) == (True, False)
        assert await PostgresFence(database, "runs", 2).take(4) == 5
        taken = await asyncio.gather(*(fence.take(0) for _ in range(8)))
        assert sorted(taken) == [*range(10, 18)]
