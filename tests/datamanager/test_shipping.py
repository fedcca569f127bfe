"""Archiving a log: every commit can be restored, whichever process dies at whichever moment."""

from __future__ import annotations

import re

import pytest

from runstream.datamanager.archive import Archive
from runstream.datamanager.compaction import LIST_FROM, MERGE_FROM
from runstream.datamanager.errors import ArchiveFencedError, ContradictionError, DamagedArchiveError, NoDataStatusError
from runstream.datamanager.shipper import Shipper
from runstream.errors import InternalError, Kind
from runstream.objects import ObjectReader, ObjectStorage
from tests.datamanager.rig import (
    DEPLOYMENT,
    HOURS,
    Fence,
    Killed,
    Mortal,
    archived,
    fill,
    kind_of,
    logged,
    paths,
    same,
    ship,
    shipping,
)
from tests.log.memory import MemoryLog
from tests.objects.reading import content


async def test_what_is_in_the_log_is_in_the_archive(storage: ObjectStorage) -> None:
    log = MemoryLog(partitions=3)
    await fill(log, 30)
    await fill(log, 4, partition=2)
    log.put(0, f"{log.subjects.prefix(0)}.run.odd", b"\xff not JSON")
    status = await ship(log, storage, Fence())
    assert (status.position.sequences, status.commits) == ((31, 0, 4), 35)
    assert same(await archived(log, storage), await logged(log))
    assert [re.sub(r"[0-9a-f]{12}(?=\.jsonl)", "…", path) for path in await paths(storage)] == [
        "archive/memory/runs/1/000/000000000001-000000000031.….jsonl.zst",
        "archive/memory/runs/1/002/000000000001-000000000004.….jsonl.zst",
        "archive/memory/runs/1/status-000000001.json",
        "archive/memory/runs/current.json",
    ]
    await fill(log, 2, partition=1)
    assert (await ship(log, storage, Fence())).position.sequences == (31, 2, 4)
    assert same(await archived(log, storage), await logged(log))


async def test_an_archive_in_any_storage(storage: ObjectStorage) -> None:
    log = MemoryLog(partitions=2)
    fence = Fence()
    async with shipping(log, storage, fence, grace=0.0) as shipper:
        for number in range(1, 2 * MERGE_FROM):
            await fill(log, 3)
            while shipper.positions()[0] < 3 * number:
                await Archive(storage, log.subjects).generations()
    assert same(await archived(log, storage), await logged(log))
    assert (await ship(log, storage, fence)).commits == 3 * (2 * MERGE_FROM - 1)
    assert set(await paths(storage, "archive/memory/runs/1/")) == await named_by(Archive(storage, log.subjects))


async def test_an_empty_log_has_a_status_too(storage: ObjectStorage) -> None:
    log = MemoryLog(partitions=2)
    archive = Archive(storage, log.subjects)
    assert await archive.find_status() is None
    with pytest.raises(NoDataStatusError) as raised:
        await archive.status()
    assert (raised.value.kind, raised.value.code) == (Kind.NOT_EXIST, "noDataStatus")
    status = await ship(log, storage, Fence())
    assert await archive.status() == status
    assert (status.commits, status.until) == (0, None)
    assert await archived(log, storage) == [[], []]


async def test_commits_are_archived_while_they_come(storage: ObjectStorage) -> None:
    log = MemoryLog(partitions=2)
    async with shipping(log, storage, Fence()) as shipper:
        for number in range(1, 20):
            await fill(log, 1, partition=number % 2)
            while shipper.status is None or shipper.status.commits < number:
                await Archive(storage, log.subjects).status()
    assert same(await archived(log, storage), await logged(log))


async def many_segments(log: MemoryLog, storage: ObjectStorage, count: int, grace: float = HOURS) -> Fence:
    """An archive that was closed after every few commits."""
    fence = Fence()
    async with shipping(log, storage, fence, grace=grace) as shipper:
        for _ in range(count):
            await fill(log, 2)
            end = await log.end(0)
            while shipper.positions()[0] < end:
                await Archive(storage, log.subjects).generations()
    return fence


async def test_many_small_segments_become_few(storage: ObjectStorage) -> None:
    log = MemoryLog(partitions=1)
    await many_segments(log, storage, 150, grace=0.0)
    archive = Archive(storage, log.subjects)
    status = await archive.status()
    assert status.position.sequences == (300,)
    assert len(status.partitions[0].segments) <= MERGE_FROM + 1
    assert same(await archived(log, storage), await logged(log))
    await ship(log, storage, Fence())
    named = {archive.paths.segment(each) for each in await archive.segments(status, 0)}
    assert set(await paths(storage, f"{archive.paths.folder}000/")) == named


class Failing:
    """A storage that neither opens segments nor deletes anything for a while."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self.fails = True
        self.stat, self.list, self.write, self.write_all = storage.stat, storage.list, storage.write, storage.write_all
        self.create = storage.create

    async def read(self, path: str) -> ObjectReader:
        self._require(kind_of(path) != "segment")
        return await self._storage.read(path)

    async def delete(self, path: str) -> None:
        self._require(False)
        await self._storage.delete(path)

    def _require(self, possible: bool) -> None:
        if self.fails and not possible:
            raise InternalError("the storage does not answer", code="objectNotRead")


async def test_a_storage_that_fails_while_segments_are_merged_holds_up_nothing_and_they_are_merged_later(
    storage: ObjectStorage,
) -> None:
    log, failing, fence = MemoryLog(partitions=1), Failing(storage), Fence()
    archive = Archive(storage, log.subjects)
    async with shipping(log, failing, fence, grace=0.0) as shipper:

        async def shipped(segments: int) -> None:
            for _ in range(segments):
                await fill(log, 2)
                end = await log.end(0)
                while shipper.positions()[0] < end:
                    await archive.generations()

        await shipped(MERGE_FROM + 4)
        assert len((await archive.status()).partitions[0].segments) == MERGE_FROM + 4
        failing.fails = False
        await shipped(2)
        assert len((await archive.status()).partitions[0].segments) < MERGE_FROM
        failing.fails = True
        await shipped(2)
    assert fence.given == 1
    assert same(await archived(log, storage), await logged(log))


async def test_segments_that_are_not_merged_any_more_are_listed_apart(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With segments that count as large after 4 commits: most are in lists, of which the last is replaced."""
    monkeypatch.setattr("runstream.datamanager.compaction.MAX_COMMITS", 4)
    monkeypatch.setattr("runstream.datamanager.compaction.LIST_SEGMENTS", 48)
    log = MemoryLog(partitions=1)
    await many_segments(log, storage, 100, grace=0.0)
    archive = Archive(storage, log.subjects)
    status = await archive.status()
    named = status.partitions[0]
    assert len(named.segments) <= LIST_FROM
    assert named.index is not None
    index = await archive.index(0, named.index)
    assert index.previous is not None
    assert index.previous.last == index.segments[0].first - 1
    assert same(await archived(log, storage), await logged(log))
    lists = [path for path in await paths(storage) if "index-" in path]
    assert len(lists) <= 3
    await ship(log, storage, Fence())
    assert len([path for path in await paths(storage) if "index-" in path]) == 2


async def test_readers_continue_while_segments_are_merged(storage: ObjectStorage) -> None:
    log = MemoryLog(partitions=1)
    await many_segments(log, storage, MERGE_FROM - 2)
    archive = Archive(storage, log.subjects)
    status = await archive.status()
    reading = archive.commits(status, 0)
    read = [*await anext(reading)]
    assert len(read) == 2
    await many_segments(log, storage, 40, grace=0.0)
    await ship(log, storage, Fence())
    async for batch in reading:
        read += batch
    assert same([read], [(await logged(log))[0][: status.commits]])


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments are merged and listed after every few commits."""
    limits = {"MERGE_FROM": 4, "MERGE": 3, "LIST_FROM": 4, "LIST": 2, "MAX_COMMITS": 12}
    for name, value in limits.items():
        monkeypatch.setattr(f"runstream.datamanager.compaction.{name}", value)
    monkeypatch.setattr("runstream.datamanager.compaction.LIST_SEGMENTS", 6)


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("when", ["before", "within", "after"])
@pytest.mark.parametrize("what", ["status", "segment", "list", "delete", "current"])
async def test_a_kill_at_every_change_of_the_storage(storage: ObjectStorage, what: str, when: str) -> None:
    """Each shipper is killed one change later than the one before; the archive can always be read, and goes on."""
    log, fence = MemoryLog(partitions=2), Fence()
    archive = Archive(storage, log.subjects)
    named = 0
    for life in range(1 if what == "current" else 6):
        mortal = Mortal(storage, what, life, when)
        try:
            async with shipping(log, mortal, fence, grace=0.0) as shipper:
                while not mortal.killed:
                    await fill(log, 1)
                    await fill(log, 1, partition=1)
                    ends = [await log.end(partition) for partition in range(2)]
                    while list(shipper.positions().values()) != ends and not mortal.killed:
                        await archive.generations()
        except* Killed:
            pass  # as after a kill: no cleanup
        assert mortal.killed
        found = await archive.find_status()
        if found is not None:
            assert found.commits >= named
            named = found.commits
            kept = await archived(log, storage)
            assert same(kept, [m[: len(k)] for m, k in zip(await logged(log), kept, strict=True)])
    await ship(log, storage, fence)
    assert same(await archived(log, storage), await logged(log))
    assert set(await paths(storage, archive.paths.folder)) == await named_by(archive)


async def named_by(archive: Archive) -> set[str]:
    """Every object that belongs to the archive."""
    status, places = await archive.status(), archive.paths
    found = {places.status(status.generation)}
    for number, partition in enumerate(status.partitions):
        found |= {places.segment(each) for each in await archive.segments(status, number)}
        reference = partition.index
        while reference is not None:
            found.add(places.index(number, reference))
            reference = (await archive.index(number, reference)).previous
    return found


async def test_a_replaced_shipper_changes_nothing_that_counts(storage: ObjectStorage) -> None:
    """The first shipper does not know that another has taken over and written since."""
    log, fence = MemoryLog(partitions=1), Fence()
    archive = Archive(storage, log.subjects)
    fenced = 0
    try:
        async with shipping(log, storage, fence):
            await fill(log, 5)
            second = await ship(log, storage, fence)
            await fill(log, 5)
    except* ArchiveFencedError:
        fenced += 1
    assert fenced
    assert (await archive.generations())[-1] == 2
    assert await archive.status() == second
    assert same(await archived(log, storage), [(await logged(log))[0][: second.commits]])
    assert (await ship(log, storage, fence)).commits == 10
    assert await archive.generations() == [3]
    assert same(await archived(log, storage), await logged(log))


async def test_a_log_that_is_not_the_archived_one_is_refused(storage: ObjectStorage) -> None:
    log, fence = MemoryLog(partitions=1), Fence()
    await fill(log, 5)
    status = await ship(log, storage, fence)
    older, other = MemoryLog(partitions=1), MemoryLog(partitions=1)
    await fill(older, 4)
    await fill(other, 6, name="other")
    for wrong, deployment, code in (
        (older, DEPLOYMENT, "logWentBack"),
        (other, DEPLOYMENT, "logDiffers"),
        (log, "another one", "otherDeployment"),
        (MemoryLog(partitions=2), DEPLOYMENT, "otherPartitions"),
    ):
        with pytest.raises(ContradictionError) as raised:
            await Shipper(wrong, storage, fence, deployment).run()
        assert raised.value.code == code
        assert raised.value.hint
    assert (await Archive(storage, log.subjects).status()) == status


@pytest.mark.parametrize("what", ["cut", "flip", "gone"])
async def test_damage_is_named(storage: ObjectStorage, what: str) -> None:
    log = MemoryLog(partitions=1)
    await many_segments(log, storage, 5)
    for path in await paths(storage, "archive/memory/runs/1/"):
        whole = await content(storage, path)
        if what == "gone":
            await storage.delete(path)
        else:
            middle = len(whole) // 2
            rest = whole[middle + 1 :] if what == "flip" else b""
            await storage.write_all({path: whole[:middle] + bytes([whole[middle] ^ 1]) + rest})
        with pytest.raises((DamagedArchiveError, NoDataStatusError)) as raised:
            await archived(log, storage)
        assert path in str(raised.value) or raised.value.code == "noDataStatus"
        await storage.write_all({path: whole})
    assert same(await archived(log, storage), await logged(log))
