"""Packing and unpacking: what is selected, and what an archive may not do."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import socket
import stat
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.errors import BadRequestError
from runstream.events.run_config import SaveContent
from runstream.executor import beneath
from runstream.executor.beneath import FOLDER, closing, open_beneath, remove_tree
from runstream.executor.extents import Extent, are_ordered, bounded
from runstream.executor.steps.archives import Packed, Unpacking, pack
from runstream.executor.task import StoppedError
from runstream.executor.task_root import OutsideTaskError, TaskRoot
from tests.executor.test_beneath import swapping
from tests.executor.test_removal import chain

GO_ON = threading.Event()


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name in ("bin/tool", "bin/deep/x.txt", "dist/a.whl", "dist/b.txt", "top"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "bin/tool").chmod(0o755)
    (folder / "link").symlink_to("bin/tool")
    return folder


def packed(
    tmp_path: Path, source: Path, *contents: SaveContent, stopped: threading.Event = GO_ON
) -> tuple[list[str], Path]:
    """Pack as a task whose working directory is `source`; the names in the archive."""
    return packed_by(tmp_path, source, *contents, stopped=stopped)[0], tmp_path / "archive.tar"


def packed_by(
    tmp_path: Path, source: Path, *contents: SaveContent, stopped: threading.Event = GO_ON
) -> tuple[list[str], Packed]:
    (tmp_path / "home").mkdir(exist_ok=True)
    target = tmp_path / "archive.tar"
    files = TaskRoot.of_folders(tmp_path / "home", source)
    try:
        with target.open("wb") as file:
            said = pack(file, contents, files, str(source), stopped)
    finally:
        files.close()
    with tarfile.open(target) as tar:
        names = tar.getnames()
    assert said.entries == len(names)
    return names, said


def restored(tmp_path: Path, *archives: Path, stopped: threading.Event = GO_ON) -> Path:
    """Unpack archives of tasks `task 1`, … into the folder `out`."""
    (tmp_path / "out").mkdir(exist_ok=True)
    files = TaskRoot.of_folders(tmp_path / "out")
    unpacking = Unpacking(files, files.home, stopped)
    try:
        for number, archive in enumerate(archives, 1):
            with archive.open("rb") as file:
                unpacking.unpack(file, f"task {number}")
    finally:
        files.close()
    return tmp_path / "out"


def test_what_is_saved_is_restored(tmp_path: Path, source: Path) -> None:
    names, archive = packed(tmp_path, source, SaveContent("", "", ("**",)))
    assert sorted(names) == tree(source)
    out = restored(tmp_path, archive)
    assert tree(out) == tree(source)
    assert (out / "link").readlink() == Path("bin/tool")
    assert stat.S_IMODE((out / "bin/tool").stat().st_mode) == 0o755
    assert (out / "bin/deep/x.txt").read_text() == "bin/deep/x.txt"


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (SaveContent("", "", ()), []),
        (SaveContent("dist", "", ("*.whl",)), ["a.whl"]),
        (SaveContent("dist", "/wheels/", ("*.{whl,zip}",)), ["wheels/a.whl"]),
        (SaveContent("./bin", "x", ("**/*.txt", "deep")), ["x/deep", "x/deep/x.txt"]),
        (SaveContent("~/files", "", ("*",)), ["at-home"]),
    ],
)
def test_what_is_selected(tmp_path: Path, source: Path, content: SaveContent, names: list[str]) -> None:
    (tmp_path / "home/files").mkdir(parents=True)
    (tmp_path / "home/files/at-home").touch()
    assert packed(tmp_path, source, content)[0] == names


def test_sockets_are_left_out(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        assert "sock" not in packed(tmp_path, source, SaveContent("", "", ("*",)))[0]


@pytest.mark.parametrize(
    "contents",
    [
        (SaveContent("missing", "", ("*",)),),
        (SaveContent("top", "", ("*",)),),
        (SaveContent("", "", ("[",)),),
        (SaveContent("", "../up", ("*",)),),
        (SaveContent("~other", "", ("*",)),),
        (SaveContent("", "", ("../*",)),),
        (SaveContent("", "", ("top",)), SaveContent("other", "", ("top",))),
        (SaveContent("", "", ("top",)), SaveContent("folders", "", ("top",))),
        (SaveContent("", "", ("link",)), SaveContent("other", "", ("link",))),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, source: Path, contents: tuple[SaveContent, ...]) -> None:
    (source / "other").mkdir()
    (source / "other/top").write_text("other")
    (source / "other/link").symlink_to("elsewhere")
    (source / "folders/top").mkdir(parents=True)
    with pytest.raises(BadRequestError):
        packed(tmp_path, source, *contents)


@pytest.mark.parametrize(
    ("pattern", "selected"),
    [
        ("dist", ["dist", "dist/sub", "dist/sub/a.txt"]),
        ("dist/", ["dist", "dist/sub", "dist/sub/a.txt"]),
        ("./dist/**", ["dist", "dist/sub", "dist/sub/a.txt"]),
        (".//dist/./sub", ["dist/sub", "dist/sub/a.txt"]),
        ("dist/*", ["dist/sub", "dist/sub/a.txt"]),
        ("**/", [".hidden", ".hidden/b", "dist", "dist/sub", "dist/sub/a.txt"]),
        ("**", [".hidden", ".hidden/b", "dist", "dist/sub", "dist/sub/a.txt"]),
        (".hidden/**", [".hidden", ".hidden/b"]),
        ("nothere/**", "pattern 'nothere/**' selects nothing in the working directory"),
        ("/dist/**", "patterns are relative to source_dir"),
        ("$HOME/project/dist/**", "variables are not replaced"),
        ("~/dist", "`~` is known in source_dir alone"),
    ],
)
def test_a_selected_folder_is_taken_with_what_it_holds_and_a_pattern_that_selects_nothing_is_named(
    tmp_path: Path, pattern: str, selected: list[str] | str
) -> None:
    source = tmp_path / "source"
    for name in ("dist/sub/a.txt", ".hidden/b"):
        (source / name).parent.mkdir(parents=True)
        (source / name).touch()
    names, said = packed_by(tmp_path, source, SaveContent("", "", (pattern,)))
    if isinstance(selected, list):
        assert (sorted(names), said.warnings) == (selected, ())
    else:
        assert names == []
        assert len(said.warnings) == 1
        assert selected in said.warnings[0]


def test_nothing_outside_of_the_patterns_is_looked_at(tmp_path: Path, source: Path) -> None:
    (source / "bin").chmod(0)
    try:
        assert packed(tmp_path, source, SaveContent("", "", ("dist/**", "t*")))[0] == [
            *("dist", "dist/a.whl", "dist/b.txt"),
            "top",
        ]
    finally:
        (source / "bin").chmod(0o755)


def test_folders_of_several_sources_merge_and_the_same_file_is_stored_once(tmp_path: Path, source: Path) -> None:
    for name in ("a/lib/a", "b/lib/b", "a/lib/same", "b/lib/same"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name[-1])
    for name in ("a/lib/link", "b/lib/link"):
        (source / name).symlink_to("/nowhere")
    contents = (
        SaveContent("a", "all", ("**",)),
        SaveContent("b", "all", ("**", "lib/b")),
        SaveContent("", "", ("a/*",)),
    )
    names, archive = packed(tmp_path, source, *contents)
    lib = ["all/lib", "all/lib/a", "all/lib/b", "all/lib/link", "all/lib/same"]
    assert sorted(names) == ["a/lib", "a/lib/a", "a/lib/link", "a/lib/same", *lib]
    out = restored(tmp_path, archive)
    assert sorted(names) == [name for name in tree(out) if name not in ("a", "all")]


def test_links_are_kept_as_they_are(tmp_path: Path, source: Path) -> None:
    targets = {"absolute": "/usr/bin/python3", "up": "../shared/x", "dangling": "nothere", "inside": "bin/../dist"}
    for name, target in targets.items():
        (source / name).symlink_to(target)
    odd, target = os.fsdecode(b"odd\xfe"), os.fsdecode(b"\xff\n")
    (source / odd).symlink_to(target)
    _, archive = packed(tmp_path, source, SaveContent("", "", ("**",)))
    for _ in range(2):  # the second time they are there, as they are to be
        out = restored(tmp_path, archive)
        assert {name: str((out / name).readlink()) for name in targets} == targets
        assert str((out / odd).readlink()) == target
    assert not (out / "dist").is_symlink()


def test_what_is_there_may_be_the_same_and_must_not_differ(tmp_path: Path, source: Path) -> None:
    (source / "hard").hardlink_to(source / "top")
    _, archive = packed(tmp_path, source, SaveContent("", "", ("**",)))
    out = restored(tmp_path, archive, archive)
    for change in (
        "echo changed >top",
        "chmod 644 bin/tool",
        "ln -sfn other link",
        "rm dist/a.whl; mkdir dist/a.whl",
        "ln -sf a.whl dist/b.txt",
        "rm -r dist; ln -s bin dist",
    ):
        subprocess.run(["/bin/sh", "-ec", change], cwd=out, check=True)
        with pytest.raises(BadRequestError, match=r"differs from what task 'task 1' saved|passes through a link"):
            restored(tmp_path, archive)
        subprocess.run(["rm", "-r", out], check=True)
        restored(tmp_path, archive)


def test_two_tasks_that_saved_one_path_are_both_named(tmp_path: Path, source: Path) -> None:
    _, archive = packed(tmp_path, source, SaveContent("", "", ("top",)))
    first = archive.rename(tmp_path / "first.tar")
    (source / "top").write_text("other")
    _, archive = packed(tmp_path, source, SaveContent("", "", ("top",)))
    with pytest.raises(BadRequestError, match=r"'top' .* differs between task 'task 1' and task 'task 3'"):
        restored(tmp_path, first, first, archive)


def test_a_deep_tree_is_packed_and_unpacked(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        (folder / "source").mkdir()
        chain(folder / "source", 1_200)
        names, archive = packed(folder, folder / "source", SaveContent("", "", ("**",)))
        assert len(names) == 1_201
        assert names[-1] == "d/" * 1_200 + "file"
        out = restored(folder, archive)
        with closing(os.open(out, FOLDER)) as top:
            os.close(open_beneath(top, names[-1], os.O_RDONLY))
        for tree in (folder / "source", out):
            assert not remove_tree(tree).count


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls that open a file or folder, with one call for each component of a path."""
    count = [0]
    real = os.open

    def counted(*args: object, **kwargs: object) -> int:
        count[0] += 1
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(beneath, "openat2", lambda *_: -1)
    monkeypatch.setattr(os, "open", counted)
    return count


def nested(folder: Path, levels: int) -> int:
    """Make nested folders; each holds a file, a hard link to it, and a file behind its folder. Return the entries."""
    for _ in range(levels):
        folder /= "d"
        folder.mkdir(parents=True)
        for name in ("a", "z"):
            (folder / name).write_text(name)
        (folder / "b").hardlink_to(folder / "a")
    return 4 * levels


def test_opened_folders_grow_with_the_entries_of_an_archive_and_not_with_their_depth(
    tmp_path: Path, opens: list[int]
) -> None:
    entries = nested(tmp_path / "one", 150)
    nested(tmp_path / "two", 150)
    (tmp_path / "home").mkdir()
    files = TaskRoot.of_folders(tmp_path / "home", tmp_path)
    contents = [SaveContent(f"{tmp_path}/{name}", "", ("**",)) for name in ("one", "two")]
    begin = opens[0]
    with (tmp_path / "archive.tar").open("wb") as file:
        assert pack(file, contents, files, str(tmp_path), GO_ON).entries == entries
    files.close()
    assert opens[0] - begin < 8 * entries
    begin = opens[0]
    for _ in range(2):
        out = restored(tmp_path, tmp_path / "archive.tar")
    assert opens[0] - begin < 2 * 6 * entries
    assert tree(out) == tree(tmp_path / "one")


def test_going_up_from_a_folder_that_was_moved_never_leads_to_where_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "x/y").mkdir(parents=True)
    with closing(os.open(tmp_path, FOLDER)) as top, contextlib.closing(beneath.FolderCursor(top)) as cursor:
        cursor.go(["x", "y"])
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "x/y").rename(tmp_path / "elsewhere/y")
        os.mkdir("new", dir_fd=cursor.go(["x"]))
    assert (tmp_path / "x/new").is_dir()
    assert tree(tmp_path / "elsewhere") == ["y"]


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        (source := Path(name) / "source").mkdir()
        chain(source, 90, "d" * 200)
        with pytest.raises(BadRequestError, match="too long to be saved"):
            packed(Path(name), source, SaveContent("", "", ("**",)))
        assert not remove_tree(source).count


def test_names_that_are_no_text_are_kept(tmp_path: Path, source: Path) -> None:
    odd = source / os.fsdecode(b"\xff\xfe\n")
    odd.mkdir()
    (odd / os.fsdecode(b"\x80")).write_text("x")
    _, archive = packed(tmp_path, source, SaveContent("", "", ("**",)))
    assert tree(restored(tmp_path, archive)) == tree(source)


def test_a_source_may_be_a_link_inside_and_never_leads_out(tmp_path: Path, source: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/file").touch()
    (source / "inside").symlink_to(tmp_path / "home")
    (source / "outside").symlink_to(tmp_path)
    assert packed(tmp_path, source, SaveContent("inside", "", ("*",)))[0] == ["file"]
    for path in ("outside", "..", "/", str(tmp_path), "/proc/self/cwd", f"{tmp_path}/home/../victim"):
        with pytest.raises(OutsideTaskError):
            packed(tmp_path, source, SaveContent(path, "", ("**",)))


@pytest.mark.parametrize("swapped", ["dist", "dist/a.whl"])
def test_what_is_swapped_for_a_link_while_it_is_packed_never_leads_out(
    tmp_path: Path, source: Path, swapped: str
) -> None:
    """Either the true content is stored, or the link, or the step fails; never what the link leads to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.whl").write_text("secret")
    target = tmp_path / "elsewhere" / ("" if swapped == "dist" else "a.whl")
    stored = set()
    with swapping(source / swapped, target):
        for _ in range(150):
            try:
                _, archive = packed(tmp_path, source, SaveContent("", "", ("dist/**",)))
            except BadRequestError as error:
                stored.add(error.code)
                continue
            stored.add("packed")
            assert b"secret" not in archive.read_bytes()
    assert stored <= {"packed", "fileChanged"}


def test_an_absolute_path_that_only_a_sandbox_has_is_refused_with_the_way_out(tmp_path: Path, source: Path) -> None:
    archive = packed(tmp_path, source, SaveContent("", "", ("top",)))[1]
    files = TaskRoot.of_folders(tmp_path / "home", source)
    says = r"'/tmp/x' is outside of the task's own files: without a sandbox .* use .* `~`"
    with archive.open("rb") as file, pytest.raises(OutsideTaskError, match=says):
        Unpacking(files, "/tmp/x", GO_ON).unpack(file, "t")
    with pytest.raises(OutsideTaskError, match=says):
        pack(io.BytesIO(), [SaveContent("/tmp/x", "", ("**",))], files, str(source), GO_ON)
    files.close()


def test_what_is_swapped_for_a_link_while_it_is_unpacked_never_leads_out(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    entries = [entry("d", tarfile.DIRTYPE), *(entry(f"d/{number}") for number in range(200))]
    archive = archive_of(tmp_path, *entries)
    (tmp_path / "out/d").mkdir(parents=True)
    with swapping(tmp_path / "out/d", tmp_path / "elsewhere"):
        for _ in range(20):
            with contextlib.suppress(BadRequestError):
                restored(tmp_path, archive)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def archive_of(tmp_path: Path, *entries: tarfile.TarInfo) -> Path:
    target = tmp_path / "hostile.tar"
    with tarfile.open(target, "w") as tar:
        for entry in entries:
            entry.size = 1 if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(b"x"))
    return target


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o6644
    return info


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../evil")],
        [entry("/tmp/evil")],
        [entry("a/../../evil")],
        [entry("out", tarfile.SYMTYPE, ".."), entry("out/evil")],
        [entry("out", tarfile.SYMTYPE, "../victim"), entry("out")],
        [entry("out", tarfile.SYMTYPE, "/etc"), entry("out/evil")],
        [entry("in", tarfile.SYMTYPE, "."), entry("in/evil")],
        [entry("hard", tarfile.LNKTYPE, "../victim")],
        [entry("soft", tarfile.SYMTYPE, "."), entry("hard", tarfile.LNKTYPE, "soft/../victim")],
        [entry("out", tarfile.SYMTYPE, ".."), entry("hard", tarfile.LNKTYPE, "out/victim")],
        [entry("a"), entry("a", tarfile.DIRTYPE)],
        [entry("a"), entry("a/b")],
        [entry("x" * 300)],
        [entry("a", b"Z")],
    ],
)
def test_nothing_leaves_the_destination(tmp_path: Path, entries: list[tarfile.TarInfo]) -> None:
    (tmp_path / "victim").write_text("untouched")
    archive = archive_of(tmp_path, *entries)
    with pytest.raises(BadRequestError):
        restored(tmp_path, archive)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.tar", "out", "victim"]
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not Path("/tmp/evil").exists()


def test_headers_of_an_archive_take_a_bounded_amount_of_memory(tmp_path: Path) -> None:
    big = tarfile.TarInfo("x")
    big.type, big.size = tarfile.XHDTYPE, 64 << 20
    (tmp_path / "big.tar").write_bytes(big.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))
    with pytest.raises(BadRequestError, match="a header is too large"):
        restored(tmp_path, tmp_path / "big.tar")
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 512
    (tmp_path / "many.tar").write_bytes((long.tobuf(tarfile.GNU_FORMAT) + b"a" * 512) * 5000)
    with pytest.raises(BadRequestError, match="cannot be read"):
        restored(tmp_path, tmp_path / "many.tar")


def test_modes_lose_what_would_change_the_user(tmp_path: Path) -> None:
    out = restored(tmp_path, archive_of(tmp_path, entry("tool")))
    assert stat.S_IMODE((out / "tool").stat().st_mode) == 0o644


def test_hard_links_and_read_only_folders_are_kept(tmp_path: Path) -> None:
    folder = entry("d", tarfile.DIRTYPE)
    folder.mode = 0o555
    archive = archive_of(tmp_path, folder, entry("d/a"), entry("d/b", tarfile.LNKTYPE, "d/a"))
    out = restored(tmp_path, archive)
    assert (out / "d/a").samefile(out / "d/b")
    assert stat.S_IMODE((out / "d").stat().st_mode) == 0o555
    (out / "d").chmod(0o755)


@pytest.mark.parametrize("content", [b"not a tar", b"\0" * 100 + b"x" * 1000])
def test_a_file_that_is_not_an_archive_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(BadRequestError, match="cannot be read"):
        restored(tmp_path, tmp_path / "bad.tar")


def test_an_archive_that_is_cut_short_is_an_error(tmp_path: Path, source: Path) -> None:
    (source / "big").write_bytes(b"x" * 100_000)
    _, archive = packed(tmp_path, source, SaveContent("", "", ("big",)))
    (tmp_path / "short.tar").write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(BadRequestError, match="cannot be read"):
        restored(tmp_path, tmp_path / "short.tar")


def test_a_stop_ends_both(tmp_path: Path, source: Path) -> None:
    _, archive = packed(tmp_path, source, SaveContent("", "", ("**",)))
    kept = archive.rename(tmp_path / "kept.tar")
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StoppedError):
        packed(tmp_path, source, SaveContent("", "", ("**",)), stopped=stopped)
    with pytest.raises(StoppedError):
        restored(tmp_path, kept, stopped=stopped)


HOLE = 1 << 40
"""A terabyte, in bytes."""


def with_holes(path: Path, size: int, *written: tuple[int, bytes]) -> Path:
    with path.open("wb") as file:
        for at, data in written:
            file.seek(at)
            file.write(data)
        file.truncate(size)
    return path


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_a_file_of_holes_takes_the_space_of_its_data_when_it_is_saved_and_restored(
    tmp_path: Path, source: Path
) -> None:
    written = ((0, b"first"), (HOLE // 2, b"x" * 300_000), (HOLE - 7, b"the end"))
    with_holes(source / "disk.img", HOLE, *written)
    with_holes(source / ("n" * 120 + "é"), HOLE)
    _, archive = packed(tmp_path, source, SaveContent("", "", ("**",)))
    assert allocated(archive) < 1 << 20
    for _ in range(2):  # the second one compares
        out = restored(tmp_path, archive)
    assert (out / "disk.img").stat().st_size == (out / ("n" * 120 + "é")).stat().st_size == HOLE
    assert allocated(out / "disk.img") < 1 << 20
    with (out / "disk.img").open("rb") as file:
        for at, data in written:
            file.seek(at)
            assert file.read(len(data)) == data
    assert (out / "top").read_text() == "top"
    listed = subprocess.run(["tar", "-tvf", archive], capture_output=True, text=True, check=True)
    assert f" {HOLE} " in listed.stdout
    assert not listed.stderr


def test_a_file_of_holes_that_differs_is_not_taken_for_the_same(tmp_path: Path, source: Path) -> None:
    with_holes(source / "disk.img", HOLE, (1 << 30, b"1"))
    _, archive = packed(tmp_path, source, SaveContent("", "", ("disk.img",)))
    for written in ((1 << 30, b"2"), (1 << 31, b"1")):
        (tmp_path / "out").mkdir(exist_ok=True)
        with_holes(tmp_path / "out/disk.img", HOLE, written).chmod((source / "disk.img").stat().st_mode)
        with pytest.raises(BadRequestError, match="it is there already"):
            restored(tmp_path, archive)
    (tmp_path / "other").mkdir()
    with_holes(tmp_path / "other/disk.img", HOLE, (0, b"1"), (1 << 30, b"1"))
    files = TaskRoot.of_folders(tmp_path / "out", tmp_path)
    with pytest.raises(BadRequestError, match="two different files"):
        pack(
            io.BytesIO(),
            [SaveContent(f"{tmp_path}/{name}", "", ("disk.img",)) for name in ("source", "other")],
            files,
            str(tmp_path),
            GO_ON,
        )
    files.close()


@pytest.mark.parametrize("sparse", ["1\n0\n4\n", "2\n0\n2\n5\n2\n"])
@pytest.mark.parametrize("large", [False, True])
def test_the_size_of_what_is_stored_may_be_in_a_header_of_its_own(tmp_path: Path, sparse: str, large: bool) -> None:
    """From 8 GiB it is, and Python's reader alone would take it for the size of the file."""
    archive = sparse_archive(tmp_path, sparse, b"abcd", HOLE, large=large)
    out = restored(tmp_path, archive)
    assert (out / "disk").stat().st_size == HOLE
    assert (out / "behind").read_bytes() == b"x"


@pytest.mark.parametrize(
    "sparse",
    [
        "1\n5\n4\n",  # beyond the end of the file
        "2\n4\n2\n0\n2\n",  # not in order
        "1\n-1\n4\n",
        "300000\n" + "0\n0\n" * 300_000,
        "1\n" + "9" * 600,
        "x\n",
        "2\n0\n4\n",  # too few
        "1\n0\n4096\n",  # more than is stored
    ],
)
def test_a_hostile_map_of_a_sparse_file_is_refused(tmp_path: Path, sparse: str) -> None:
    size = 8 if "4096" not in sparse else 1 << 20
    with pytest.raises(BadRequestError) as raised:
        restored(tmp_path, sparse_archive(tmp_path, sparse, b"abcd", size, behind=False))
    assert raised.value.code in ("archiveCorrupt", "archiveEntryRefused")


def sparse_archive(
    tmp_path: Path, sparse: str, data: bytes, size: int, *, large: bool = False, behind: bool = True
) -> Path:
    content = sparse.encode() + bytes(-len(sparse) % 512) + data
    info = entry("GNUSparseFile.0/disk")
    info.size = len(content)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "disk",
        "GNU.sparse.realsize": str(size),
    }
    if large:
        info.pax_headers["size"] = str(len(content))
    with tarfile.open(tmp_path / "sparse.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(content))
        if behind:
            (behind_it := entry("behind")).size = 1
            tar.addfile(behind_it, io.BytesIO(b"x"))
    return tmp_path / "sparse.tar"


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 8))
def test_bounded_extents_cover_what_was_found(sizes: list[int], limit: int) -> None:
    ends = list(itertools.accumulate(size + 1 for size in sizes))
    found = [Extent(begin, end) for begin, end in zip(ends[::2], ends[1::2], strict=False)]
    kept = bounded(found, limit)
    assert len(kept) <= limit
    assert are_ordered(kept, ends[-1] if ends else 0)
    assert all(any(one.begin <= extent.begin and extent.end <= one.end for one in kept) for extent in found)
    assert kept == found or len(found) > limit
