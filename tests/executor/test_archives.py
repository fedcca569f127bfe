"""Packing and unpacking: what is selected, and what an archive may not do."""

from __future__ import annotations

import io
import socket
import stat
import tarfile
import threading
from pathlib import Path

import pytest

from runstream.errors import BadRequestError
from runstream.events.run_config import SaveContent
from runstream.executor.archives import StoppedError, pack, unpack

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


def packed(tmp_path: Path, source: Path, *contents: SaveContent) -> tuple[list[str], Path]:
    target = tmp_path / "archive.tar"
    return pack(target, contents, source, tmp_path / "home", GO_ON), target


def restored(tmp_path: Path, archive: Path) -> Path:
    with archive.open("rb") as file:
        unpack(file, tmp_path / "out", GO_ON)
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
        (SaveContent("", "", ("top",)), SaveContent("", "", ("top",))),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, source: Path, contents: tuple[SaveContent, ...]) -> None:
    with pytest.raises(BadRequestError):
        packed(tmp_path, source, *contents)


def test_existing_folders_are_fine_and_existing_files_are_errors(tmp_path: Path, source: Path) -> None:
    _, archive = packed(tmp_path, source, SaveContent("", "", ("bin/**",)))
    (tmp_path / "out/bin").mkdir(parents=True)
    restored(tmp_path, archive)
    with pytest.raises(BadRequestError, match="already exists"):
        restored(tmp_path, archive)


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
        [entry("out", tarfile.SYMTYPE, "..")],
        [entry("out", tarfile.SYMTYPE, "/etc")],
        [entry("in", tarfile.SYMTYPE, "."), entry("in/evil")],
        [entry("hard", tarfile.LNKTYPE, "../victim")],
        [entry("soft", tarfile.SYMTYPE, "."), entry("hard", tarfile.LNKTYPE, "soft/../victim")],
        [
            entry("p", tarfile.DIRTYPE),
            entry("p/q", tarfile.DIRTYPE),
            entry("p/q/y", tarfile.SYMTYPE, "x/../z"),
            entry("p/q/x", tarfile.SYMTYPE, "../.."),
        ],
        [entry("a"), entry("a")],
        [entry("a", b"Z")],
    ],
)
def test_nothing_leaves_the_destination(tmp_path: Path, entries: list[tarfile.TarInfo]) -> None:
    (tmp_path / "victim").write_text("untouched")
    archive = archive_of(tmp_path, *entries)
    with pytest.raises(BadRequestError):
        restored(tmp_path, archive)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.tar", "out", "victim"]
    for path in (tmp_path / "out").rglob("*"):
        assert path.resolve().is_relative_to((tmp_path / "out").resolve())


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
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
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
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StoppedError):
        pack(tmp_path / "other.tar", [SaveContent("", "", ("**",))], source, tmp_path, stopped)
    with archive.open("rb") as file, pytest.raises(StoppedError):
        unpack(file, tmp_path / "out", stopped)
