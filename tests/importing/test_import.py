"""An import makes the log exactly what the snapshot says, or nothing of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.generate import append
from structlog.testing import capture_logs

from runstream.database.epochs import remember_export
from runstream.errors import ConflictError, InternalError
from runstream.importing.epochs import publish_epoch
from runstream.importing.importer import older_than, preview_import, verify_file
from runstream.importing.trusted_keys import announce_trusted_keys
from runstream.log.streams import described
from runstream.objects import ObjectStorage
from runstream.projections.rebuild_schema import schema_beside
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.signing import SigningKey, fingerprint, make_keys, read_public_key
from tests.projections.test_rebuild import schemas
from tests.servers import Servers
from tests.snapshots.files import generated, memory_log, write, written

from .rig import Rig, compared, rig, silent


async def used(around: Rig) -> None:
    """Something has happened here before."""
    async with around.log() as log:
        await append(around.place.nats_url, log, 10)
    await around.rebuild()


@pytest.mark.parametrize("processes", [1, 2])
async def test_export_import_export_is_the_same(
    processes: int, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if processes > 1:
        monkeypatch.setattr("runstream.importing.importer.MANY", 0)
        monkeypatch.setattr("runstream.importing.importer.available_cpus", lambda: processes)
    manifest = await written(tmp_path / "first", generated(60))
    async with rig(servers) as around:
        await used(around)
        done = await around.run_import(tmp_path / "first")
        assert (done.here_epoch, done.commits, done.runs, done.parked) == (2, manifest.commits, 60, 0)
        assert around.parked.asked == ["the import of first"]
        assert around.parked.required == 1
        report = await around.fsck()
        assert (report.lines()[:-1], report.commits) == ([], manifest.commits)
        again = compared(tmp_path / "first", await around.export(tmp_path / "second"))
        assert (again.differences, again.same) == ([], manifest.commits)
        epochs = await around.epochs()
        assert [(epoch.current, epoch.state) for epoch in epochs.values()] == [(False, "ready"), (True, "ready")]
        assert epochs[2].origin.startswith("import of first: ")
        assert all(await around.ends(1, 3))
        assert schema_beside(servers.schema) not in await schemas(around.database)


@pytest.mark.parametrize("seed", range(2))
async def test_a_log_in_which_much_has_happened(seed: int, servers: Servers, tmp_path: Path) -> None:
    await written(tmp_path / "first", memory_log(seed))
    async with rig(servers, 1) as around:
        await around.run_import(tmp_path / "first")
        assert await around.differences() == []
        assert compared(tmp_path / "first", await around.export(tmp_path / "second")).differences == []


@pytest.mark.parametrize(("before", "now", "elsewhere"), [(3, 1, False), (3, 2, True), (2, 5, False), (1, 4, True)])
async def test_another_number_of_partitions(
    before: int, now: int, elsewhere: bool, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if elsewhere:  # in another process, as much is
        monkeypatch.setattr("runstream.importing.importer.MANY", 0)
    manifest = await written(tmp_path / "first", generated(70, before))
    async with rig(servers, now) as around:
        done = await around.run_import(tmp_path / "first")
        assert (done.partitions, done.here_partitions) == (before, now)
        assert await around.differences() == []
        second = await around.export(tmp_path / "second")
        again = compared(tmp_path / "first", second)
        configs = [line for line in again.differences if "runconfig" not in line]
        assert configs == []
        assert again.same >= manifest.commits - before
        await around.run_import(second)
        assert (await around.fsck()).clean
        assert compared(second, await around.export(tmp_path / "third")).differences == []


async def test_what_goes_wrong_leaves_nothing(servers: Servers, tmp_path: Path) -> None:
    await written(tmp_path / "first", generated(30))
    async with rig(servers) as around:
        await used(around)
        before = await around.fsck()
        around.parked.error = ConflictError("a process is no longer parked", code="occupationLost")
        with pytest.raises(ConflictError):
            await around.run_import(tmp_path / "first")
        assert (await around.epochs())[2].state == "deleted"
        assert await around.ends(2, 3) == (None, None, None)
        assert schema_beside(servers.schema) not in await schemas(around.database)
        after = await around.fsck()
        assert (after.clean, after.commits) == (True, before.commits)
        around.parked.error = None
        assert (await around.run_import(tmp_path / "first")).here_epoch == 3
        assert (await around.fsck()).clean


async def test_a_failure_of_the_stream_leaves_nothing(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path / "first", generated(30))

    async def refused(*_: object) -> None:
        raise InternalError("the disk of NATS is full", code="notLoaded")

    async with rig(servers) as around:
        monkeypatch.setattr("runstream.log.loading.StreamLoader.load", refused)
        with pytest.raises(InternalError, match="full"):
            await around.run_import(tmp_path / "first")
        assert await around.ends(2, 3) == (None, None, None)
        assert (await around.fsck()).commits == 0


async def test_a_file_that_is_replaced_meanwhile_is_refused(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "first"
    await written(file, generated(30))
    other = tmp_path / "other"
    await written(other, generated(31))
    async with rig(servers) as around:

        def replace(*_: object) -> str:
            file.write_bytes(other.read_bytes())
            return "another hash"

        monkeypatch.setattr("runstream.importing.importer.hash_of", replace)
        with pytest.raises(SnapshotError, match="replaced by another one"):
            await around.run_import(file)
        assert (await around.epochs())[2].state == "deleted"


async def test_nats_learns_of_an_import_before_any_process_resumes(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path / "first", generated(30))

    async def away(*_: object) -> None:
        raise InternalError("NATS is away", code="logUnreachable")

    async with rig(servers) as around:
        with monkeypatch.context() as patched:
            patched.setattr("runstream.importing.epochs.publish_epoch", away)
            await around.run_import(tmp_path / "first")
        place = around.place
        said = await described(place.nats, servers.namespace, "runs")
        assert said is not None
        assert said.epoch == 1
        for _ in range(2):
            await publish_epoch(place.nats, around.database, servers.namespace, "runs")
            said = await described(place.nats, servers.namespace, "runs")
            assert said is not None
            assert said.epoch == 2
        assert (await around.fsck()).clean


async def test_objects_are_added_and_never_replaced(
    servers: Servers, storage: ObjectStorage, other_storage: ObjectStorage, tmp_path: Path
) -> None:
    task = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
    there, here = storage, other_storage
    log, archive = f"logs/{task}/data/steps/0.log", f"workspacearchives/{task}/data/0.tar"
    contents = {f"logs/{task}/data/setup.log": b"there" * 100_000, log: b"new", archive: bytes(9_000_000)}
    contents |= {f"logs/{task}-2/data/steps/0.log": b"again", f"workspacearchives/{task}-2/data/0.tar": b"again"}
    await there.write_all(contents)
    await written(tmp_path / "first", generated(5), objects=there, kinds=("logs", "archives"))
    await here.write_all({log: b"mine"})
    async with rig(servers) as around:
        done = await around.run_import(tmp_path / "first", here)
        assert (done.objects, done.objects_added) == (5, 4)
        for path, content in {**contents, log: b"mine"}.items():
            async with await here.read(path) as found:
                assert await found.read(0, found.size) == content


def test_only_a_snapshot_of_a_trusted_key_is_taken(tmp_path: Path) -> None:
    own, other = (make_keys(tmp_path / f"{name}.pem") for name in ("own", "other"))
    write(tmp_path / "signed", key=SigningKey.read(tmp_path / "own.pem"))
    write(tmp_path / "unsigned")
    for trusted in ([], [str(own)], [str(other), str(own)]):
        assert verify_file(tmp_path / "signed", "", silent, trusted=trusted)[0].signer
    for name, trusted in (("signed", [str(other)]), ("unsigned", [str(own)])):
        with pytest.raises(SnapshotError, match="takes only what is signed") as raised:
            verify_file(tmp_path / name, "", silent, trusted=trusted)
        assert raised.value.code == "notTrusted"


async def test_an_import_that_does_not_know_the_gateways_settings_requires_their_keys_all_the_same(
    servers: Servers, tmp_path: Path
) -> None:
    trusted = fingerprint(read_public_key(make_keys(tmp_path / "own.pem")))
    await written(tmp_path / "signed", key=SigningKey.read(tmp_path / "own.pem"))
    await written(tmp_path / "unsigned")
    async with rig(servers) as around:
        signed, unsigned = (around.parts(tmp_path / name) for name in ("signed", "unsigned"))
        nats, namespace = around.place.nats, around.place.namespace
        await announce_trusted_keys(nats, namespace, "runs", [trusted])
        for taking_in in (preview_import(unsigned), around.run_import(tmp_path / "unsigned")):
            with pytest.raises(SnapshotError, match="takes only what is signed"):
                await taking_in
        assert len(await around.epochs()) == 1
        assert (await preview_import(signed)).signer == trusted
        await announce_trusted_keys(nats, namespace, "runs", [])
        assert (await preview_import(unsigned)).signer == ""


async def test_an_older_snapshot_than_one_before_is_named(servers: Servers, tmp_path: Path) -> None:
    async with rig(servers) as around:
        async with around.log() as log:
            await append(around.place.nats_url, log, 2)
        await around.rebuild()
        old, new = await around.export(tmp_path / "old"), await around.export(tmp_path / "new")
        for path, named in ((old, False), (new, False), (old, True), (new, False)):
            (snapshot,) = verify_file(path, "", silent)
            assert bool(await older_than(around.place, snapshot)) == named, path
            await around.run_import(path)


async def test_an_older_snapshot_than_one_that_was_exported_is_named(servers: Servers, tmp_path: Path) -> None:
    async with rig(servers) as around:
        async with around.log() as log:
            await append(around.place.nats_url, log, 2)
        await around.rebuild()
        names = ("old", "new")
        parts = [around.parts(await around.export(tmp_path / name, remembered=True)) for name in names]
        old, new = (snapshots[0].snapshot for snapshots in parts)
        later = f"of {new.header.created:%Y-%m-%d %H:%M:%S} UTC, was exported here before"
        assert later in await older_than(around.place, old)
        assert later in (await preview_import(parts[0])).older
        assert later in (await around.run_import(old.path)).older
        assert await older_than(around.place, new) == ""
        await remember_export(around.database, old.header.service, old.header.namespace, old.header.created)
        assert later in await older_than(around.place, old)
        other = replace(old, header=replace(old.header, namespace="another"))
        assert await older_than(around.place, other) == ""


async def test_an_export_succeeds_although_it_cannot_be_remembered(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise InternalError("the database is away", code="databaseAway")

    monkeypatch.setattr("runstream.database.epochs.note_export", away)
    async with rig(servers) as around:
        with capture_logs() as told:
            verify_file(await around.export(tmp_path / "s", remembered=True), "", silent)
        assert "export_not_remembered" in [one["action"] for one in told]
