from __future__ import annotations

import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop

from runstream.commits import Head
from runstream.errors import InternalError
from runstream.events.executor_task import (
    ExecutorTaskArchiveStored,
    ExecutorTaskLogLost,
    ExecutorTaskLogStored,
)
from runstream.ids import executor_task_id
from runstream.objects import BytesSource, ObjectStorage, paths
from runstream.snapshots.export import Resumed
from runstream.snapshots.objects import object_chunks, objects
from runstream.snapshots.partial_file import SnapshotFile
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.verify import verify
from runstream.subjects import Address
from tests.factories import task_assigned
from tests.log.memory import MemoryLog
from tests.snapshots.files import described_anew, pack, parts, write

TASKS = [f"0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a{n:02}" for n in range(4)]
RETRIED = f"{TASKS[0]}-2"
CONTENTS = {
    paths.step_log(RETRIED, 0): b"of the second attempt",
    paths.log_reference(RETRIED, TASKS[0]): b"",
    **{paths.step_log(task, None): b"setup\n" for task in TASKS},
    **{paths.step_log(task, 0): b"x" * 300_000 for task in TASKS},
    **{paths.log_reference(task, task): b"" for task in TASKS},
    paths.log_index(TASKS[0], 0): b"of 0.log",
    paths.archive(TASKS[0], 0): bytes(1_500_000),
    paths.archive_reference(TASKS[0], TASKS[0]): b"",
}


@pytest.fixture
def filled(storage: ObjectStorage) -> ObjectStorage:
    async def fill() -> None:
        await storage.write_all({**CONTENTS, "caches/x.tar": b"x"})

    uvloop.run(fill())
    return storage


def read(path: Path) -> Mapping[str, bytes]:
    with open_snapshot(path) as snapshot:
        return {found.path: b"".join(object_chunks(snapshot, found)) for found in objects(snapshot)}


def test_objects_come_along(filled: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.snapshots.objects.LIST_OBJECTS", 5)
    manifest = write(tmp_path / "s", objects=filled, kinds=("logs", "archives"))
    assert [found.objects for found in manifest.objects] == [5, 5, 5, 2]
    assert read(tmp_path / "s") == CONTENTS
    assert verify(tmp_path / "s").good
    assert not {"step logs", "workspace archives"} & {*manifest.left_out}


def test_only_what_was_asked_for(filled: ObjectStorage, tmp_path: Path) -> None:
    manifest = write(tmp_path / "s", objects=filled, kinds=("archives",))
    assert read(tmp_path / "s").keys() == {path for path in CONTENTS if path.startswith("workspacearchives/")}
    assert "step logs" in manifest.left_out


def test_what_is_none_of_ours_is_left_out(filled: ObjectStorage, tmp_path: Path) -> None:
    uvloop.run(filled.write("logs/a b/c", BytesSource(b"x")))
    uvloop.run(filled.write(f"logs/{TASKS[0]}/data/{'x' * 90}", BytesSource(b"x")))
    write(tmp_path / "s", objects=filled, kinds=("logs",))
    assert read(tmp_path / "s").keys() == {path for path in CONTENTS if path.startswith("logs/")}
    assert verify(tmp_path / "s").good


def test_changed_objects_are_named(filled: ObjectStorage, tmp_path: Path) -> None:
    write(tmp_path / "s", objects=filled, kinds=("logs",))
    files = parts(tmp_path / "s")
    names = [name for name in files if name.startswith("logs/")]
    log = next(name for name in names if name.endswith("steps/0.log"))
    listed = next(name for name in files if name.startswith("object-lists/"))
    for changed, part in (
        ({**files, log: b"y" * 300_000}, log),
        ({**files, log: b"x"}, log),
        ({k: v for k, v in files.items() if k != log}, names[names.index(log) + 1]),
        ({k: v for k, v in files.items() if k not in names}, names[0]),
        ({**files, listed: files[listed][:-1] + b"x"}, listed),
        ({k: v for k, v in files.items() if k != listed}, listed),
    ):
        problem = verify(pack(tmp_path / "x", changed)).problems[0]
        assert problem.part == part, problem


def test_objects_that_no_list_names(filled: ObjectStorage, tmp_path: Path) -> None:
    write(tmp_path / "s", objects=filled, kinds=("logs",))
    files = parts(tmp_path / "s")
    listed = next(name for name in files if name.startswith("object-lists/"))
    without = described_anew({k: v for k, v in files.items() if k != listed}, objects=[])
    assert "no list names it" in str(verify(pack(tmp_path / "x", without)).problems[0])
    elsewhere = {name.replace("logs/", "../logs/"): content for name, content in files.items()}
    with pytest.raises(ValueError, match="cannot be the name"):
        pack(tmp_path / "x", elsewhere)
    other = {name.replace("logs/0b", "logs/xx"): content for name, content in files.items()}
    assert not verify(pack(tmp_path / "x", other)).good


def test_an_export_without_an_object_that_the_log_refers_to_fails(storage: ObjectStorage, tmp_path: Path) -> None:
    run_task = TASKS[0]
    executor_task = executor_task_id(TASKS[1], run_task, 2)
    address = Address(0, "task", executor_task, "executor")
    time = datetime(2026, 1, 1, tzinfo=UTC)
    assigned = task_assigned("executor", TASKS[1], run_task, steps=2, attempt=2)
    events = (assigned, ExecutorTaskLogStored(None), ExecutorTaskLogLost(0), ExecutorTaskArchiveStored(1, ()))
    log = MemoryLog()
    uvloop.run(log.append(Head().next_commit(address, events, time=time, actor="test")))
    there = {paths.step_log(RETRIED, None): b"setup", paths.archive(RETRIED, 1): b"tar"}
    uvloop.run(storage.write_all(there))
    write(tmp_path / "whole", log, objects=storage, kinds=("logs", "archives"))
    assert read(tmp_path / "whole") == there
    uvloop.run(storage.delete(paths.step_log(RETRIED, None)))
    write(tmp_path / "archives", log, objects=storage, kinds=("archives",))
    with pytest.raises(InternalError, match=paths.step_log(RETRIED, None)) as raised:
        write(tmp_path / "logs", log, objects=storage, kinds=("logs", "archives"))
    assert raised.value.code == "objectsMissing"
    with open_snapshot(tmp_path / "whole") as whole:
        resumed = Resumed(whole.header, dict(whole.manifest.texts), whole.manifest.segments)
    with pytest.raises(InternalError, match=paths.step_log(RETRIED, None)):
        write(tmp_path / "resumed", log, objects=storage, kinds=("logs", "archives"), resumed=resumed)
    uvloop.run(storage.write_all(there))
    uvloop.run(storage.delete(paths.archive(RETRIED, 1)))
    write(tmp_path / "only logs", log, objects=storage, kinds=("logs",))
    with pytest.raises(InternalError, match=paths.archive(RETRIED, 1)):
        write(tmp_path / "no archive", log, objects=storage, kinds=("logs", "archives"))


def test_an_export_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "s", resuming=False)
    with file:
        assert stat.S_IMODE(file.part.stat().st_mode) == 0o600
        uvloop.run(file.send(b"x"))
        uvloop.run(file.finish())
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
