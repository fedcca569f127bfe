"""Removing the files of tasks: any depth, any name, any mode, and nothing outside."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from runstream.executor.beneath import FOLDER, FS_IOC_SETFLAGS, printable, remove_tree
from runstream.executor.task_root import TaskUser, run_as
from tests.executor.rig import rig, run_step

NOBODY = TaskUser(65534, 65534)


def chain(folder: Path, levels: int, name: str = "d") -> None:
    """Make a folder in a folder in a folder, with a file in the last."""
    here = os.open(folder, FOLDER)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, FOLDER, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder on a file system that makes many folders fast."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("levels", [1, 1_200, 20_000])
def test_a_tree_of_any_depth_is_removed(in_memory: Path, levels: int) -> None:
    (in_memory / "tree").mkdir()
    chain(in_memory / "tree", levels)
    before = descriptors()
    assert not remove_tree(in_memory / "tree").count
    assert list(in_memory.iterdir()) == []
    assert descriptors() == before


def test_any_name_and_any_kind_of_file_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    for folder in (tree / "sub", outside / "sub"):
        folder.mkdir(parents=True)
    (outside / "kept").write_text("kept")
    (tree / "link").symlink_to(outside)
    (tree / "sub/up").symlink_to("../..")
    os.mkfifo(tree / "sub/fifo")
    for name in (b"\xff\xfe", b"line\nbreak", b"\x1b[31m", b"-rf", b"a" * 255):
        Path(os.fsdecode(bytes(tree / "sub") + b"/" + name)).mkdir()
        Path(os.fsdecode(bytes(tree) + b"/" + name)).touch()
    assert not remove_tree(tree).count
    assert not remove_tree(tree).count  # nothing is there any more
    assert (outside / "kept").read_text() == "kept"
    (tmp_path / "link").symlink_to(outside)
    assert not remove_tree(tmp_path / "link").count
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
async def test_unreadable_folders_are_removed_and_those_of_others_are_named(tmp_path: Path) -> None:
    for folder in (*tmp_path.parents, tmp_path):
        if folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o711)
    place = tmp_path / "place"
    for name in ("mine/locked/deep", "theirs/of root"):
        (place / name).mkdir(parents=True)
    (place / "theirs/of root/file").touch()
    (place / "mine/locked/deep/file").touch()
    for path in (place, *place.rglob("*")):
        if "of root" not in str(path):
            os.chown(path, NOBODY.uid, NOBODY.gid)
    for name in ("mine/locked/deep", "mine/locked", "mine"):
        (place / name).chmod(0)
    assert not (await run_as(NOBODY, remove_tree, place / "mine")).count
    left = await run_as(NOBODY, remove_tree, place / "theirs")
    assert str(left) == f"{place}/theirs/of root/file: Permission denied"
    assert (place / "theirs/of root/file").exists()


@pytest.fixture
def immutable(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tasks/one/home"
    folder.mkdir(parents=True)
    (folder / "file").touch()
    try:
        for path in (folder / "file", folder):
            set_flags(path, 0x10)
    except OSError:
        pytest.skip("this file system or user has no immutable files")
    yield folder
    for path in (folder, folder / "file"):
        if path.exists():
            set_flags(path, 0)


def set_flags(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("i", flags))
    os.close(descriptor)


def test_what_is_immutable_is_removed(immutable: Path) -> None:
    assert not remove_tree(immutable.parent).count
    assert not immutable.parent.exists()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder of a task on which a file system of the machine is mounted."""
    point, outside = tmp_path / "executor/tasks/old/home/mount", tmp_path / "outside"
    for folder in (point, outside):
        folder.mkdir(parents=True)
    (outside / "kept").touch()
    done = subprocess.run(["mount", "--bind", outside, point], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    yield outside
    for folder in (point, *(tmp_path / "executor/set-aside").glob("*/home/mount")):
        unmount(folder)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=False, capture_output=True)


async def test_what_cannot_be_removed_is_set_aside_and_the_executor_starts(
    tmp_path: Path, mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Earlier tests may have set a level that leaves warnings out; a logger that was used keeps its configuration.
    structlog.reset_defaults()
    monkeypatch.setattr("runstream.executor.workdir.log", structlog.get_logger())
    with capture_logs() as logs:
        async with rig(tmp_path) as it:
            assert (await it.run(run_step("true"))).task.settled
        async with rig(tmp_path) as it:
            assert (await it.run(run_step("true"))).task.settled
    assert (mounted / "kept").exists()
    assert list((tmp_path / "executor/tasks").iterdir()) == []
    (aside,) = (tmp_path / "executor/set-aside").iterdir()
    said = [each["event"] for each in logs if each.get("action") == "task_folder_left"]
    assert len(said) == 3, said
    assert f"stay in {aside}: {tmp_path}/executor/tasks/old/home/mount: a file system is mounted on it" in said[0]
    assert f"{aside}/home/mount: a file system is mounted on it" in said[2]
    unmount(aside / "home/mount")
    async with rig(tmp_path) as it:
        assert list((tmp_path / "executor/set-aside").iterdir()) == []


async def test_a_task_that_leaves_a_deep_folder_and_odd_names_does_not_keep_the_executor_from_starting(
    in_memory: Path,
) -> None:
    tasks = in_memory / "executor/tasks"
    (tasks / "old").mkdir(parents=True)
    chain(tasks / "old", 1_200)
    (tasks / "old" / os.fsdecode(b"\xff")).touch()
    (tasks / "a file").touch()
    async with rig(in_memory):
        assert list(tasks.iterdir()) == []


def test_names_are_shown_on_one_line() -> None:
    assert printable("plain é/x") == "plain é/x"
    assert printable("a\nb\x1b[0m\udcff") == "a\\nb\\x1b[0m\\xff"
    assert len(printable("x" * 10_000)) < 400
