"""What the posix backend guarantees beyond the port: paths as they are, and no leftovers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from runstream.errors import BadRequestError, InternalError
from runstream.objects import BytesSource, PosixObjects, paths
from runstream.objects.posix import Folders


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
    assert paths.cache("p", "k") == "caches/p/k.tar"
    assert paths.run_task_id_from_path(paths.archive("t", 3)) == "t"
    with pytest.raises(BadRequestError):
        paths.run_task_id_from_path(paths.step_log("t", 3))


async def test_a_local_file_becomes_the_object_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o750)
    storage = PosixObjects(tmp_path)
    local = tmp_path / "local"
    local.write_bytes(b"one")
    local.chmod(0o600)
    await storage.write_all({"a/b": local})
    stored = tmp_path / "data/a/b"
    assert stored.samefile(local)
    assert stored.stat().st_mode & 0o777 == 0o640
    local.unlink()
    local.write_bytes(b"another one")
    await storage.write_all({"a/b": local, "a/c": b""})
    assert (stored.read_bytes(), (tmp_path / "data/a/c").read_bytes()) == (b"another one", b"")
    await storage.write_all({"a/b": b""})
    assert (stored.read_bytes(), local.read_bytes()) == (b"", b"another one")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of another file system."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    return memory


async def test_a_local_file_of_another_file_system_is_copied(tmp_path: Path, elsewhere: Path) -> None:
    storage = PosixObjects(tmp_path)
    with tempfile.NamedTemporaryFile(dir=elsewhere) as local:
        local.write(b"far away")
        local.flush()
        await storage.write_all({"a/b": Path(local.name)})
    assert (tmp_path / "data/a/b").read_bytes() == b"far away"


async def test_a_local_file_is_synced_before_it_is_an_object_and_its_folders_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = PosixObjects(tmp_path)
    local = tmp_path / "local"
    local.write_bytes(b"one")
    sync, link = os.fsync, os.link
    done: list[tuple[str, Path]] = []

    def synced(descriptor: int) -> None:
        done.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    def linked(source: Path, target: Path) -> None:
        link(source, target)
        done.append(("link", target))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    await storage.write_all({"a/b/c": local})
    data = tmp_path / "data"
    assert done[:2] == [("sync", local), ("link", data / "a/b/c")]
    assert sorted(done[2:]) == [("sync", data), ("sync", data / "a"), ("sync", data / "a/b")]


async def test_a_link_is_no_local_file(tmp_path: Path) -> None:
    storage = PosixObjects(tmp_path)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "log").symlink_to(tmp_path / "secret")
    with pytest.raises(InternalError, match="'a/b' cannot be stored"):
        await storage.write_all({"a/b": tmp_path / "log"})
    assert list((tmp_path / "data").iterdir()) == []


def test_a_writer_syncs_the_entry_of_a_folder_that_another_has_just_made(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    inner = tmp_path / "a/b/c"
    folders.make(inner)
    assert folders.unsynced([inner]) == [tmp_path / "a/b", tmp_path / "a", tmp_path]
    folders.sync([tmp_path / "a"])
    assert folders.unsynced([inner]) == [tmp_path / "a/b", tmp_path]
    inner.rmdir()
    folders.make(inner)  # as if between the look at a/b and its sync
    folders.sync([tmp_path, tmp_path / "a", tmp_path / "gone"])
    assert folders.unsynced([inner]) == [tmp_path / "a/b"]
    folders.sync([tmp_path / "a/b"])
    assert folders.unsynced([inner]) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        folders.make(tmp_path / "file/x")
    assert folders.unsynced([tmp_path / "file/x"]) == []
