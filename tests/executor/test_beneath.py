"""Opening files beneath a directory: by openat2 and without it, with links, and against a tree that changes."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runstream.executor import beneath
from runstream.executor.beneath import FOLDER, Links, closing, open_beneath, remove_tree
from runstream.executor.task_root import OutsideTaskError, TaskRoot, TaskUser, run_as

READ = os.O_RDONLY


@pytest.fixture(params=["openat2", "walk"])
def _by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "walk":
        monkeypatch.setattr(beneath, "openat2", lambda *_: -1)


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "secret").write_text("secret")
    top = tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    (top / "a/file").write_text("file")
    (top / "secret").write_text("mine")
    for name, target in {
        "a/up": "..",
        "out": "../secret",
        "absolute": str(tmp_path / "secret"),
        "rooted": "/a/file",
        "loop": "loop",
        "good": "a/b/../file",
        "dangling": "nothing",
    }.items():
        (top / name).symlink_to(target)
    with closing(os.open(top, FOLDER)) as descriptor:
        yield descriptor


def content(top: int, path: str, links: Links) -> str | int:
    try:
        with os.fdopen(open_beneath(top, path, READ, links=links)) as file:
            return file.read()
    except OSError as error:
        return error.errno or 0


@pytest.mark.usefixtures("_by")
@pytest.mark.parametrize(
    ("path", "refuse", "inside", "in_root"),
    [
        ("a/file", "file", "file", "file"),
        ("./a//./file", "file", "file", "file"),
        ("a/../a/file", "file", "file", "file"),
        ("../secret", errno.EXDEV, errno.EXDEV, "mine"),
        ("a/../../secret", errno.EXDEV, errno.EXDEV, "mine"),
        ("/a/file", errno.EXDEV, errno.EXDEV, "file"),
        ("a/up/secret", errno.ELOOP, "mine", "mine"),
        ("out", errno.ELOOP, errno.EXDEV, "mine"),
        ("absolute", errno.ELOOP, errno.EXDEV, errno.ENOENT),
        ("rooted", errno.ELOOP, errno.EXDEV, "file"),
        ("loop", errno.ELOOP, errno.ELOOP, errno.ELOOP),
        ("good", errno.ELOOP, "file", "file"),
        ("dangling", errno.ELOOP, errno.ENOENT, errno.ENOENT),
        ("a/file/", errno.ENOTDIR, errno.ENOTDIR, errno.ENOTDIR),
        ("", errno.ENOENT, errno.ENOENT, errno.ENOENT),
        ("no", errno.ENOENT, errno.ENOENT, errno.ENOENT),
    ],
)
def test_what_a_path_opens(top: int, path: str, refuse: str | int, inside: str | int, in_root: str | int) -> None:
    found = [content(top, path, links) for links in (Links.REFUSE, Links.BENEATH, Links.IN_ROOT)]
    assert found == [refuse, inside, in_root]


@pytest.mark.usefixtures("_by")
def test_a_new_file_is_made_and_a_link_is_not_written_through(tmp_path: Path, top: int) -> None:
    create = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(open_beneath(top, "a/new", create, 0o640))
    assert (tmp_path / "top/a/new").stat().st_mode & 0o777 == 0o640
    for name in ("dangling", "out"):
        with pytest.raises(FileExistsError):
            open_beneath(top, name, create, 0o600, links=Links.BENEATH)
    assert not (tmp_path / "top/nothing").exists()


@pytest.mark.usefixtures("_by")
def test_a_path_of_any_length_can_be_opened(top: int) -> None:
    here, name = os.dup(top), "d" * 250
    for _ in range(20):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, FOLDER, dir_fd=here)
        os.close(here)
        here = below
    with closing(here), closing(open_beneath(top, f"{name}/" * 20, FOLDER)) as found:
        assert os.path.sameopenfile(here, found)


def test_null_bytes_are_refused(top: int) -> None:
    with pytest.raises(ValueError, match="null byte"):
        open_beneath(top, "a/file\0x", READ)


@contextlib.contextmanager
def swapping(folder: Path, link: Path) -> Iterator[None]:
    """Exchange a folder and a link to elsewhere, again and again, as a task's background process can."""
    stop, aside = threading.Event(), folder.with_name("aside")

    def swap() -> None:
        while not stop.is_set():
            for change in (
                lambda: folder.rename(aside),
                lambda: folder.symlink_to(link),
                folder.unlink,
                lambda: aside.rename(folder),
            ):
                with contextlib.suppress(OSError):  # others make it meanwhile
                    change()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.usefixtures("_by")
@pytest.mark.parametrize("links", list(Links))
def test_a_folder_that_is_swapped_for_a_link_never_leads_out(tmp_path: Path, top: int, links: Links) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_text("secret")
    with swapping(tmp_path / "top/a", tmp_path / "elsewhere"):
        found = {content(top, "a/file", links) for _ in range(2000)}
    assert "secret" not in found
    assert content(top, "a/file", links) == "file"


@pytest.fixture
def task(tmp_path: Path) -> Iterator[TaskRoot]:
    for name in ("home/project", "tmp", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    root = TaskRoot.of_folders(tmp_path / "home", tmp_path / "tmp")
    yield root
    root.close()


def test_paths_of_a_task(task: TaskRoot) -> None:
    home = task.home
    assert task.path("~") == home
    assert task.path("~/x", "/any") == f"{home}/x"
    assert task.path("x", "~/project") == f"{home}/project/x"
    assert task.path("/x") == "/x"


def test_links_of_a_task_may_be_absolute_and_lead_from_one_of_its_folders_to_another(
    tmp_path: Path, task: TaskRoot
) -> None:
    (tmp_path / "tmp/deep").mkdir()
    (tmp_path / "home/to-tmp").symlink_to(tmp_path / "tmp")
    (tmp_path / "tmp/deep/back").symlink_to(tmp_path / "home/project")
    (tmp_path / "home/project/found").write_text("found")
    with os.fdopen(task.open(task.path("~/to-tmp/deep/back/found"), READ)) as file:
        assert file.read() == "found"


@pytest.mark.parametrize(
    "target", ["{tmp}/elsewhere", "../elsewhere", "/", "/proc/self/root", "{tmp}/home/../elsewhere"]
)
def test_no_path_and_no_link_of_a_task_leads_out(tmp_path: Path, task: TaskRoot, target: str) -> None:
    target = target.format(tmp=tmp_path)
    (tmp_path / "home/link").symlink_to(target)
    attempts: list[Callable[[], object]] = [
        lambda: task.open_folder(task.path(target)),
        lambda: task.open_folder(task.path("~/link")),
        lambda: task.make_folder(task.path("~/link/made")),
        lambda: task.write(task.path("~/link/written"), b"x"),
        lambda: task.make_folder(task.path("made", target)),
    ]
    for attempt in attempts:
        with pytest.raises(OutsideTaskError):
            attempt()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_whole_file_system_of_a_task(tmp_path: Path) -> None:
    (tmp_path / "home/me").mkdir(parents=True)
    (tmp_path / "home/me/.ssh").symlink_to("/keys")
    (tmp_path / "keys").mkdir()
    root = TaskRoot("/home/me", {"/": os.open(tmp_path, FOLDER)})
    root.write(root.path("~/.ssh/id"), b"key")
    os.close(root.make_folder("/new/deep"))
    assert (tmp_path / "keys/id").read_bytes() == b"key"
    assert (tmp_path / "new/deep").is_dir()
    root.close()
    root.close()


def test_a_directory_of_any_depth_is_made_in_single_steps(
    tmp_path: Path, task: TaskRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, really = 0, os.open

    def counted(*args: Any, **options: Any) -> int:
        nonlocal opened
        opened += 1
        return really(*args, **options)

    monkeypatch.setattr(os, "open", counted)
    depth = 500
    os.close(task.make_folder(task.path("~/" + "directory/" * depth)))  # longer than a path may be
    assert opened <= 3 * depth
    assert not remove_tree(tmp_path / "home/directory").count


def test_a_directory_is_made_behind_links_and_steps_up(tmp_path: Path, task: TaskRoot) -> None:
    (tmp_path / "home/there").mkdir()
    (tmp_path / "home/relative").symlink_to("there")
    (tmp_path / "home/absolute").symlink_to(tmp_path / "home/there")
    for path in ("relative/one/two", "absolute/three", "relative/../four", "new/../five/./six"):
        os.close(task.make_folder(task.path(f"~/{path}")))
        assert (tmp_path / "home" / path).is_dir()
    (tmp_path / "home/dangling").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        task.make_folder(task.path("~/dangling/made"))
    (tmp_path / "home/file").touch()
    with pytest.raises(NotADirectoryError):
        task.make_folder(task.path("~/file/made"))


def test_a_file_is_written_in_place_of_a_link(tmp_path: Path, task: TaskRoot) -> None:
    (tmp_path / "elsewhere/config").write_text("theirs")
    (tmp_path / "home/config").symlink_to(tmp_path / "elsewhere/config")
    task.write(task.path("~/config"), b"ours")
    assert (tmp_path / "home/config").read_text() == "ours"
    assert (tmp_path / "elsewhere/config").read_text() == "theirs"
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["config", "project"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
async def test_files_are_accessed_as_the_tasks_user(tmp_path: Path) -> None:
    for folder in (*tmp_path.parents, tmp_path):
        if folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o711)
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", 12345, 12345)
    (tmp_path / "home/secret").write_text("of root")
    (tmp_path / "home/secret").chmod(0o600)
    root = TaskRoot.of_folders(tmp_path / "home", user=TaskUser(12345, 12346))
    with pytest.raises(PermissionError):
        await root.run(root.open, root.path("~/secret"), READ)
    await root.run(root.write, root.path("~/made"), b"x")
    found = (tmp_path / "home/made").stat()
    assert (found.st_uid, found.st_gid) == (12345, 12346)
    (tmp_path / "ours").touch()  # this thread is still what it was
    assert (tmp_path / "ours").stat().st_uid == 0
    assert await run_as(TaskUser(12345, 12345), _capabilities) == 0
    root.close()


def _capabilities() -> int:
    status = Path(f"/proc/self/task/{threading.get_native_id()}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
