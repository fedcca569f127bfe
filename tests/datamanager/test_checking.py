"""Comparing archive and log: each difference is reported with its place, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from runstream.codec import ID_HEADER
from runstream.datamanager.agreement import ArchiveReport, check_archive
from runstream.datamanager.archive import Archive
from runstream.datamanager.status import DataStatus, encode_status
from runstream.log.jetstream import open_log
from runstream.objects import ObjectStorage, PosixObjects
from runstream.objects.port import BytesSource
from tests.datamanager.conftest import OpenPlace
from tests.datamanager.rig import DEPLOYMENT, HOURS, Fence, Killed, Mortal, fill, paths, ship, shipping
from tests.log.memory import MemoryLog
from tests.objects.backends import Open


async def check(
    log: MemoryLog, storage: ObjectStorage, fence: Fence | None = None, partitions: Sequence[int] | None = None
) -> ArchiveReport:
    return await check_archive(Archive(storage, log.subjects), log, DEPLOYMENT, fence or Fence(), partitions)


async def only(log: MemoryLog, storage: ObjectStorage) -> str:
    """The one difference."""
    report = await check(log, storage)
    assert report.exit_status == 1
    assert len(report.differences) == 1, report.lines()
    return str(report.differences[0])


async def in_pieces(log: MemoryLog, storage: ObjectStorage, pieces: int, fence: Fence | None = None) -> None:
    """Archive two commits of partition 0 at a time."""
    async with shipping(log, storage, fence or Fence()) as shipper:
        for _ in range(pieces):
            await fill(log, 2)
            end = await log.end(0)
            while shipper.positions()[0] < end:
                await Archive(storage, log.subjects).generations()


async def content(storage: ObjectStorage, path: str) -> bytes:
    async with await storage.read(path) as stored:
        return await stored.read(0, stored.size)


async def put(storage: ObjectStorage, path: str, data: bytes) -> None:
    await storage.write(path, BytesSource(data), persist=True)


async def said_otherwise(log: MemoryLog, storage: ObjectStorage, status: DataStatus) -> None:
    """Have the archive say this about itself, with the right hash."""
    await put(storage, Archive(storage, log.subjects).paths.status(status.generation), encode_status(status))


async def segments(storage: ObjectStorage) -> list[str]:
    return [path for path in await paths(storage) if path.endswith(".jsonl.zst")]


async def test_an_archive_of_the_whole_log(open_storage: Open) -> None:
    log, storage = MemoryLog(partitions=3), await open_storage()
    log.put(1, f"{log.subjects.prefix(1)}.run.odd", b"\xff no JSON", {"Runstream-Encoding": "gz"})
    await fill(log, 5, partition=2)
    await in_pieces(log, storage, 4)
    report = await check(log, storage)
    assert report.lines()[:-1] == []
    assert (report.exit_status, report.commits, report.segments) == (0, 14, 6)
    assert report.behind == {0: 0, 1: 0, 2: 0}
    assert "14 commits in 6 segments, up to" in report.lines()[-1]
    assert report.lines()[-1].endswith("0 commits behind the log: no difference")


async def test_merged_and_listed_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.datamanager.compaction.MAX_COMMITS", 4)
    monkeypatch.setattr("runstream.datamanager.compaction.LIST_SEGMENTS", 32)
    log, storage = MemoryLog(partitions=1), PosixObjects(tmp_path)
    await in_pieces(log, storage, 100)
    lists = [path for path in await paths(storage) if "index-" in path]
    status = await Archive(storage, log.subjects).status()
    assert status.partitions[0].index is not None
    assert (await check(log, storage)).lines()[:-1] == []
    await storage.delete(lists[-1])
    report = await check(log, storage)
    assert [str(one) for one in report.differences] == [
        f"{lists[-1]}: commits 1/0/1 to 1/0/{status.partitions[0].index.last}: it is missing"
    ]
    assert 0 < report.commits == 200 - status.partitions[0].index.last


async def test_what_is_not_archived_yet_is_said(tmp_path: Path) -> None:
    log, storage = MemoryLog(partitions=2), PosixObjects(tmp_path)
    await fill(log, 3)
    before = await check(log, storage)
    assert (before.clean, before.behind) == (True, {0: 3, 1: 0})
    assert before.lines() == ["archive: nothing is archived yet, 3 commits behind the log: no difference"]
    await ship(log, storage, Fence())
    await fill(log, 4, partition=1)
    report = await check(log, storage)
    assert (report.exit_status, report.commits, report.behind) == (0, 3, {0: 0, 1: 4})
    assert "4 commits behind the log: no difference" in report.lines()[0]
    assert (await check(log, storage, partitions=[0])).behind == {0: 0}


@pytest.mark.parametrize("what", ["flipped", "cut", "gone"])
async def test_every_damaged_segment_is_named_and_the_others_are_compared(open_storage: Open, what: str) -> None:
    log, storage = MemoryLog(partitions=1), await open_storage()
    await in_pieces(log, storage, 6)
    all_of_them = await segments(storage)
    for path in (all_of_them[1], all_of_them[3]):
        whole = await content(storage, path)
        if what == "gone":
            await storage.delete(path)
        else:
            middle = len(whole) // 2
            rest = whole[middle + 1 :] if what == "flipped" else b""
            await put(storage, path, whole[:middle] + bytes([whole[middle] ^ 1]) + rest)
    report = await check(log, storage)
    problem = "it is missing" if what == "gone" else "it was changed: its SHA-256 is not the one that is written down"
    assert [str(one) for one in report.differences] == [
        f"{all_of_them[1]}: commits 1/0/3 to 1/0/4: {problem}",
        f"{all_of_them[3]}: commits 1/0/7 to 1/0/8: {problem}",
    ]
    assert (report.exit_status, report.commits) == (1, 8)
    first = report.differences[0]
    assert (first.partition, first.first, first.last) == (0, 3, 4)


async def test_two_segments_that_changed_places(tmp_path: Path) -> None:
    log, storage = MemoryLog(partitions=1), PosixObjects(tmp_path)
    await in_pieces(log, storage, 4)
    _, second, third, _ = await segments(storage)
    contents = await content(storage, second), await content(storage, third)
    await put(storage, second, contents[1])
    await put(storage, third, contents[0])
    assert [one.path for one in (await check(log, storage)).differences] == [second, third]


async def test_a_status_that_names_its_segments_in_another_order(tmp_path: Path) -> None:
    log, storage = MemoryLog(partitions=1), PosixObjects(tmp_path)
    await in_pieces(log, storage, 4)
    status = await Archive(storage, log.subjects).status()
    one, two, three, four = status.partitions[0].segments
    for order in ((one, three, two, four), (one, two, four), (two, three, four)):
        await said_otherwise(log, storage, status.with_partition(0, replace(status.partitions[0], segments=order)))
        told = [str(found) for found in (await check(log, storage)).differences]
        assert told
        assert all("status-000000001.json: commits 1/0/" in line for line in told), told


async def test_a_commit_that_the_log_says_otherwise(tmp_path: Path) -> None:
    """Both are whole by their hashes."""
    log, storage = MemoryLog(partitions=1), PosixObjects(tmp_path)
    await in_pieces(log, storage, 3)
    stream = log.streams[0]
    message = stream.messages[2]
    for other in (
        structs.replace(message, data=message.data.replace(b"build 0", b"build 9")),
        structs.replace(message, subject=message.subject + "x"),
        structs.replace(message, headers={**message.headers, "traceparent": "00-1"}),
    ):
        assert other != message
        stream.messages[2] = other
        assert "commit 1/0/3: the log has another one of run/" in await only(log, storage)
    stream.messages[2] = structs.replace(message, headers={ID_HEADER: message.headers[ID_HEADER], "Nats-Batch-Id": "1"})
    assert (await check(log, storage)).clean


async def test_an_archive_beyond_the_log(tmp_path: Path) -> None:
    log, storage = MemoryLog(partitions=1), PosixObjects(tmp_path)
    await in_pieces(log, storage, 3)
    stream = log.streams[0]
    stream.messages = stream.messages[:3]
    assert "commits 1/0/4 to 1/0/6: they are not in the log, which ends at 3" in await only(log, storage)
    stream.messages = []
    assert "commits 1/0/1 to 1/0/6: they are not in the log, which ends at 0" in await only(log, storage)


async def test_a_status_of_another_deployment_or_with_other_partitions(tmp_path: Path) -> None:
    log, storage = MemoryLog(partitions=2), PosixObjects(tmp_path)
    await fill(log, 3)
    status = await ship(log, storage, Fence())
    await said_otherwise(log, storage, replace(status, deployment="another"))
    assert "it is of deployment another, the log is of a deployment" in await only(log, storage)
    await said_otherwise(log, storage, replace(status, partitions=status.partitions[:1]))
    assert "it has 1 partition, the log has 2" in await only(log, storage)
    named = status.partitions[0]
    assert named.tip is not None
    tip = replace(named.tip, sha256="0" * 64)
    await said_otherwise(log, storage, status.with_partition(0, replace(named, tip=tip)))
    assert "commit 1/0/3: the data status names another last commit" in await only(log, storage)
    miscounted = replace(named.segments[0], events={"RunCreated": 2})
    await said_otherwise(log, storage, status.with_partition(0, replace(named, segments=(miscounted,))))
    assert "its number of events is not the one that it states" in await only(log, storage)


async def test_a_status_that_cannot_be_read_or_is_gone(tmp_path: Path) -> None:
    log, storage, fence = MemoryLog(partitions=1), PosixObjects(tmp_path), Fence()
    await fill(log, 3)
    await ship(log, storage, fence)
    path = Archive(storage, log.subjects).paths.status(1)
    await put(storage, path, b"{}")
    assert path in await only(log, storage)
    await storage.delete(path)
    assert "there are objects, but no data status that names them" in await only(log, storage)
    for left in await paths(storage):
        await storage.delete(left)
    report = await check(log, storage, fence)
    assert "a datamanager has written one (generation 1)" in str(report.differences[0])
    assert report.behind == {0: 3}


async def test_segments_that_are_merged_meanwhile_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first segment is read, all of them become others."""
    log, storage, fence = MemoryLog(partitions=1), PosixObjects(tmp_path), Fence()
    await in_pieces(log, storage, 10, fence)
    archive = Archive(storage, log.subjects)
    status = await archive.status()
    read = archive.segment
    merged = 0

    async def segment(description):  # type: ignore[no-untyped-def]
        nonlocal merged
        found = await read(description)
        if not merged:
            merged += 1
            await in_pieces(log, storage, 30, fence)
            await ship(log, storage, fence, grace=0.0)  # which removes objects that no list names
        return found

    monkeypatch.setattr(archive, "segment", segment)
    report = await check_archive(archive, log, DEPLOYMENT, fence)
    assert report.lines()[:-1] == []
    now = await archive.status()
    assert now.partitions[0].segments[0] != status.partitions[0].segments[0]
    assert report.behind == {0: 0}


async def test_an_archive_that_a_killed_datamanager_left_is_no_difference(tmp_path: Path) -> None:
    log, storage, fence = MemoryLog(partitions=1), PosixObjects(tmp_path), Fence()
    mortal = Mortal(storage, "status", 2, "before")
    try:
        async with shipping(log, mortal, fence, grace=HOURS) as shipper:
            while not mortal.killed:
                await fill(log, 1)
                end = await log.end(0)
                while shipper.positions()[0] < end and not mortal.killed:
                    await Archive(storage, log.subjects).generations()
    except* Killed:
        pass
    report = await check(log, storage, fence)
    assert report.lines()[:-1] == []
    assert report.behind[0] > 0


async def test_a_log_on_real_servers(new_place: OpenPlace) -> None:
    async with new_place() as place:
        deployment = (await place.prepare()).deployment
        await place.append(20)
        await place.append(3, partition=1)
        await place.ship()
        await place.append(2)
        async with await open_log(place.nc, place.namespace) as log:
            report = await check_archive(place.archive, log, deployment, Fence())
        assert report.lines()[:-1] == []
        assert (report.commits, report.behind) == (23, {0: 2, 1: 0})
