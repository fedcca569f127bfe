"""What several runs share is deleted with the last reference, on each backend."""

from __future__ import annotations

import pytest

from runstream.errors import BadRequestError
from runstream.objects import paths as layout
from runstream.objects.references import Shared, delete_unreferenced, drop_reference, referring_runs, shared_of
from tests.objects.backends import Open
from tests.objects.reading import paths


async def test_data_goes_with_the_last_reference(open_storage: Open) -> None:
    storage = await open_storage()
    log, setup = layout.step_log("task", 0), layout.step_log("task", None)
    other = {
        layout.archive("task", 1): b"",
        layout.archive_reference("task", "run1"): b"",
        layout.step_log("tas", 0): b"",
    }
    runs = {layout.log_reference("task", run): b"" for run in ("run1", "run2")}
    await storage.write_all({log: b"", setup: b"", **runs, **other})
    shared = shared_of(log)
    assert shared == Shared("logs", "task")
    assert await referring_runs(storage, shared) == ["run1", "run2"]
    assert not await delete_unreferenced(storage, log)
    assert not await drop_reference(storage, shared, "run1")
    assert not await drop_reference(storage, shared, "run1")
    assert await paths(storage, "logs/task/") == [setup, log, layout.log_reference("task", "run2")]
    assert await drop_reference(storage, shared, "run2")
    assert await drop_reference(storage, shared, "run2")
    assert await paths(storage) == sorted(other)


async def test_data_without_references_is_deleted(open_storage: Open) -> None:
    storage = await open_storage()
    archive = layout.archive("task", 1)
    await storage.write_all({archive: b"", layout.archive("task", 2): b""})
    assert await delete_unreferenced(storage, archive)
    assert await delete_unreferenced(storage, archive)
    assert await paths(storage) == [layout.archive("task", 2)]
    with pytest.raises(BadRequestError, match="is a reference"):
        await delete_unreferenced(storage, layout.archive_reference("task", "run1"))


async def test_the_index_of_a_log_is_deleted_with_it(open_storage: Open) -> None:
    storage = await open_storage()
    log, other = layout.step_log("task", 1), layout.log_index("task", 2)
    await storage.write_all({log: b"", layout.log_index("task", 1): b"", other: b""})
    assert await delete_unreferenced(storage, log)
    assert await paths(storage) == [other]
    await storage.write_all({log: b"", layout.log_index("task", None): b"", layout.log_reference("task", "run"): b""})
    assert await drop_reference(storage, shared_of(log), "run")
    assert await paths(storage) == []


@pytest.mark.parametrize("path", ["caches/k.tar", "logs", "logs/t", "logs//data/setup.log", "logs/t/other/x", ""])
def test_paths_of_other_objects_are_refused(path: str) -> None:
    with pytest.raises(BadRequestError, match="is not the path of a log or an archive"):
        shared_of(path)
