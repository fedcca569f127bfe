"""What the posix backend promises beyond the port: paths as they are, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from runstream.errors import BadRequestError, InternalError
from runstream.objects import BytesSource, PosixObjects, paths


async def test_files_have_the_objects_paths_and_no_folder_is_left(tmp_path: Path) -> None:
    storage = PosixObjects(tmp_path)
    await storage.write("logs/t/data/steps/0.log", BytesSource(b"hi"), persist=True)
    assert (tmp_path / "data/logs/t/data/steps/0.log").read_bytes() == b"hi"
    assert list((tmp_path / "tmp").iterdir()) == []
    await storage.delete("logs/t/data/steps/0.log")
    assert list((tmp_path / "data").iterdir()) == []


async def test_a_path_below_an_object_is_a_clear_error(tmp_path: Path) -> None:
    storage = PosixObjects(tmp_path)
    await storage.write("a", BytesSource(b""))
    with pytest.raises(InternalError, match="'a/b' cannot be stored"):
        await storage.write("a/b", BytesSource(b""))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_paths_are_those_of_the_domain() -> None:
    assert paths.step_log("t", None) == "logs/t/data/setup.log"
    assert paths.step_log("t", 3) == "logs/t/data/steps/3.log"
    assert paths.log_reference("t", "r") == "logs/t/runs/r"
    assert paths.archive("t", 3) == "workspacearchives/t/data/3.tar"
    assert paths.archive_reference("t", "r") == "workspacearchives/t/runs/r"
    assert paths.cache("p-k") == "caches/p-k.tar"
    assert paths.run_task_id_from_path(paths.archive("t", 3)) == "t"
    with pytest.raises(BadRequestError):
        paths.run_task_id_from_path(paths.step_log("t", 3))
