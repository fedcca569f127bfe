"""A log with parked commits can be exported and imported: they come along as they are, and are parked again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from sqlalchemy import text

from runstream.commits import Head, LogPosition, Position
from runstream.errors import BadRequestError
from runstream.events.run import RunStarted
from runstream.ids import new_id
from runstream.projections.parked import list_parked, skip_commit
from runstream.snapshots import manifest as m
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.verify import verify
from runstream.subjects import Address
from runstream.upcasters import UPCASTERS
from tests.servers import Servers
from tests.snapshots.files import described_anew, pack, parts, written
from tests.snapshots.golden_log import golden_log
from tests.snapshots.make_golden import parked_in

from .rig import Rig, compared, rig

NOW = datetime(2026, 11, 23, tzinfo=UTC)
NEWER = {"type": "RunPondered", "version": 1}


async def parked_ones(around: Rig) -> list[Position]:
    async with around.database.snapshot() as transaction:
        epoch = next(one.number for one in (await around.epochs()).values() if one.current)
        return [one.position for one in await list_parked(transaction, epoch=epoch)]


async def begin(around: Rig, tmp_path: Path) -> str:
    """Write the golden log followed by commits that cannot be read or applied; return the run that has most of them."""
    await written(tmp_path / "golden", golden := golden_log(), parked=parked_in(golden))
    await around.run_import(tmp_path / "golden")
    async with around.log() as log:
        with open_snapshot(tmp_path / "golden") as snapshot:
            (run, *_) = [
                one.commit.address
                for partition in range(2)
                for one in snapshot.commits(partition)
                if one.commit.address.kind == "run" and one.commit.version == 1
            ]
        history = await log.history(run)
        version = history[-1].commit.version
        await publish(around, log.subjects.of(run), commit(run.id, version + 1, NEWER))
        await publish(around, log.subjects.of(run), commit(run.id, version + 2, {"type": "RunArchived", "version": 1}))
        await publish(around, f"{log.subjects.prefix(1)}.cow.moo", b"\xff\0")
        unfit = Head().next_commit(Address(0, "run", new_id()), [RunStarted()], time=NOW, actor="user:ada")
        await log.append(unfit)
    await around.rebuild()
    return run.id


def commit(run: str, version: int, *events: dict[str, object]) -> bytes:
    body = {"id": new_id(), "aggregate": f"run/{run}", "version": version, "time": "2026-01-01T00:00:00Z"}
    return orjson.dumps({**body, "actor": "user:later", "cause": "", "events": events})


async def publish(around: Rig, subject: str, body: bytes) -> None:
    await around.place.nats.jetstream().publish(subject, body)


@pytest.mark.parametrize("partitions", [1, 2, 3])
async def test_they_come_along_and_are_parked_again(partitions: int, servers: Servers, tmp_path: Path) -> None:
    async with rig(servers, 2) as around:
        await begin(around, tmp_path)
        assert len(await parked_ones(around)) == 5
        first = await around.export(tmp_path / "first")
        report = verify(first)
        assert (report.problems, report.parked, report.skipped) == ([], 5, 1)
        assert report.manifest is not None
        assert len(report.manifest.parked) == 4
        assert {one.subject.split(".")[0] for one in report.manifest.parked} == {"run", "cow"}
        assert any("RunPondered" in one.reason for one in report.manifest.parked)
    other = servers.beside("2")
    async with rig(other, partitions) as around:
        done = await around.run_import(first)
        assert (done.parked, done.parked_in_source) == (5, 5)
        assert len(await parked_ones(around)) == 5
        assert await around.differences() == []
        second = await around.export(tmp_path / "second")
        again = verify(second)
        assert (again.problems, again.parked) == ([], 5)
        differences = [line for line in compared(first, second).differences if "runconfig" not in line]
        assert differences == [] or partitions != 2
        if partitions == 2:
            assert compared(first, second).equal
        await around.rebuild()
        assert len(await parked_ones(around)) == 5
        await drop(around, other.schema)


async def drop(around: Rig, schema: str) -> None:
    await around.database.transaction(lambda transaction: transaction.execute(text(f'DROP SCHEMA "{schema}" CASCADE')))


async def test_where_they_can_be_read_they_are_applied(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(servers, 2) as around:
        await begin(around, tmp_path)
        first = await around.export(tmp_path / "first")
        monkeypatch.setitem(UPCASTERS, ("RunPondered", 1), lambda _: [{"type": "RunArchived", "version": 1}])
        done = await around.run_import(first)
        assert (done.parked, done.parked_in_source) == (3, 5)
        assert await around.differences() == []


async def test_what_was_skipped_behind_the_end_of_an_export_was_parked_then(servers: Servers, tmp_path: Path) -> None:
    async with rig(servers, 2) as around:
        await begin(around, tmp_path)
        async with around.log() as log:
            until = LogPosition(log.epoch, (await log.end(0), await log.end(1)))
            while found := await parked_ones(around):
                await skip_commit(log, around.database, found[0], actor="user:ada", reason="x", at=NOW)
                await around.rebuild()
        assert await parked_ones(around) == []
        then = verify(await around.export(tmp_path / "then", until))
        assert (then.problems, then.parked, then.skipped) == ([], 5, 1)
        now = verify(await around.export(tmp_path / "now"))
        assert (now.problems, now.parked, now.skipped) == ([], 0, 5)
        assert (await around.run_import(tmp_path / "then")).parked == 5
        assert await around.differences() == []
        assert (await around.run_import(tmp_path / "now")).parked == 0
        assert await around.differences() == []


async def test_what_the_manifest_does_not_name_is_an_error(servers: Servers, tmp_path: Path) -> None:
    async with rig(servers, 2) as around:
        await begin(around, tmp_path)
        files = parts(await around.export(tmp_path / "first"))
        named = json.loads(files[m.MANIFEST])["parked"]
        unreadable = [one for one in named if "cannot be read" in one["reason"]]
        assert len(unreadable) == 3
        for one in unreadable:
            parked = [other for other in named if other != one]
            some = verify(pack(tmp_path / "some", described_anew(files, parked=parked)))
            assert not some.good
            assert "it cannot be read" in str(some.problems[0])
            with pytest.raises(BadRequestError):
                await around.run_import(tmp_path / "some")
        wrong = (
            [{**named[0], "sequence": named[0]["sequence"] - 1}, *named[1:]],
            [{**named[0], "sequence": 1 << 40}, *named[1:]],
            [{**named[0], "partition": 9}, *named[1:]],
            [*named, {**named[0], "subject": "run.unknown"}],
            [*named, named[0]],
        )
        for parked in wrong:
            report = verify(pack(tmp_path / "wrong", described_anew(files, parked=parked)))
            assert not report.good, parked
            assert m.MANIFEST in str(report.problems[0]) or "parked" in str(report.problems)
