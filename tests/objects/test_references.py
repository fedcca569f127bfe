"""What several runs share is deleted with the last reference, on each backend."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from runstream.errors import BadRequestError
from runstream.events.run import DataKind
from runstream.objects import paths as layout
from runstream.objects.references import GRACE, LOOK_AGAIN, Holds, Shared, drop_reference, shared_of
from tests.objects.backends import Open
from tests.objects.reading import paths
from tests.objects.references import referring_runs

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def log_has(*held: str, dropped: str = "") -> Holds:
    """A log in which these runs hold their data, and in which one has dropped it."""

    async def holds(run_id: str, kind: DataKind) -> bool | None:
        return True if run_id in held else False if run_id == dropped else None

    return holds


async def test_data_goes_with_the_last_reference(open_storage: Open) -> None:
    storage = await open_storage()
    log, setup, index = layout.step_log("task", 0), layout.step_log("task", None), layout.log_index("task", 0)
    other = {
        layout.archive("task", 1): b"",
        layout.archive_reference("task", "run1"): b"",
        layout.step_log("tas", 0): b"",
    }
    runs = {layout.log_reference("task", run): b"" for run in ("run1", "run2")}
    await storage.write_all({log: b"", setup: b"", index: b"", **runs, **other})
    shared = shared_of(log)
    assert shared == Shared("logs", "task")
    assert await referring_runs(storage, shared) == ["run1", "run2"]
    for _ in range(2):
        assert await drop_reference(storage, shared, "run1", log_has("run2"), NOW) is None
        assert await paths(storage, "logs/task/") == sorted([setup, log, index, layout.log_reference("task", "run2")])
    for _ in range(2):
        assert await drop_reference(storage, shared, "run2", log_has(), NOW) is None
        assert await paths(storage) == sorted(other)


async def test_a_reference_that_its_run_has_dropped_keeps_nothing(open_storage: Open) -> None:
    """A cleaner that was killed may have left it, or a deletion by another service of the same storage."""
    storage = await open_storage()
    log, left = layout.step_log("task", 0), layout.log_reference("task", "run2")
    await storage.write_all({log: b"", left: b"", layout.log_reference("task", "run1"): b""})
    assert await drop_reference(storage, shared_of(log), "run1", log_has(dropped="run2"), NOW) is None
    assert await paths(storage) == []


async def test_a_reference_of_an_unknown_run_counts_for_a_while(open_storage: Open) -> None:
    """A restart stores it before its run is in the log; one that is refused, or killed, leaves it."""
    storage = await open_storage()
    log, early = layout.step_log("task", 0), layout.log_reference("task", "run2")
    await storage.write_all({log: b"", early: b"", layout.log_reference("task", "run1"): b""})
    stored = (await storage.stat(early)).modified
    for age, again in ((GRACE / 2, GRACE / 2 + LOOK_AGAIN), (GRACE - LOOK_AGAIN / 2, GRACE)):
        assert await drop_reference(storage, shared_of(log), "run1", log_has(), stored + age) == stored + again
        assert await paths(storage) == sorted([log, early])
    assert await drop_reference(storage, shared_of(log), "run1", log_has(), stored + GRACE) is None
    assert await paths(storage) == []


async def test_a_reference_that_is_added_between_list_and_drop_keeps_the_data(open_storage: Open) -> None:
    """A restart of the last run refers to the data while the cleaner looks that run up."""
    storage = await open_storage()
    log, late = layout.step_log("task", 0), layout.log_reference("task", "run3")
    await storage.write_all({log: b"", **{layout.log_reference("task", run): b"" for run in ("run1", "run2")}})

    async def holds(run_id: str, kind: DataKind) -> bool | None:
        if run_id == "run2":
            await storage.write_all({late: b""})
        return run_id == "run3"

    assert await drop_reference(storage, shared_of(log), "run1", holds, NOW) is None
    assert await paths(storage) == sorted([log, late])


@pytest.mark.parametrize("path", ["caches/k.tar", "logs", "logs/t", "logs//data/setup.log", "logs/t/other/x", ""])
def test_paths_of_other_objects_are_refused(path: str) -> None:
    with pytest.raises(BadRequestError, match="is not the path of a log or an archive"):
        shared_of(path)
