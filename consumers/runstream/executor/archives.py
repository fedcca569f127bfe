"""Packing a workspace archive and unpacking one (domain d.5). Blocking: to be run in a thread.

An archive is hostile input: nothing is written outside of the destination, no link leads out of it, and no
existing file is replaced. An existing folder is fine.
"""

from __future__ import annotations

import os
import stat
import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from runstream.errors import BadRequestError, InternalError
from runstream.events.run_config import SaveContent
from runstream.executor.globs import Glob

_COPY_BYTES = 256 << 10
_SOCKETS = (stat.S_IFSOCK,)


class StoppedError(InternalError):
    """The task is being ended."""

    def __init__(self) -> None:
        super().__init__("the task is being ended", code="taskStopped")


def pack(
    target: Path, contents: Sequence[SaveContent], folder: Path, home: Path, stopped: threading.Event
) -> list[str]:
    """Make a tar of what the contents select, relative to `folder`; the names in it, in order.

    Raises BadRequestError when a source is not a folder, a pattern is malformed or two sources give one path.
    """
    names: dict[str, None] = {}
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for content in contents:
            source = expand_home(content.source_dir, home, folder)
            if not source.is_dir():
                raise BadRequestError(f"source_dir {content.source_dir!r} is not a folder", code="sourceNotFolder")
            globs = [Glob(pattern) for pattern in content.paths]
            for relative in _walk(source, ""):
                if stopped.is_set():
                    raise StoppedError
                if any(glob.matches(relative) for glob in globs):
                    _add(tar, source / relative, _joined(content.dest_dir, relative), names)
    return list(names)


def expand_home(text: str, home: Path, folder: Path) -> Path:
    """A path that may begin with `~`, relative to `folder`. Raises BadRequestError for `~user`."""
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    if text.startswith("~"):
        raise BadRequestError(f"{text!r}: the home of another user is not available", code="invalidPath")
    return folder / text


def _walk(folder: Path, path: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        relative = f"{path}{entry.name}"
        yield relative
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, f"{relative}/")


def _joined(dest_dir: str, relative: str) -> str:
    parts = [part for part in f"{dest_dir}/{relative}".split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadRequestError(f"dest_dir {dest_dir!r} leads out of the archive", code="invalidPath")
    return "/".join(parts)


def _add(tar: tarfile.TarFile, source: Path, name: str, names: dict[str, None]) -> None:
    found = source.lstat()
    if stat.S_IFMT(found.st_mode) in _SOCKETS:
        return
    if name in names:
        raise BadRequestError(f"two files would be {name!r} in the archive", code="duplicatePath")
    names[name] = None
    tar.add(source, arcname=name, recursive=False)


def unpack(archive: BinaryIO, destination: Path, stopped: threading.Event) -> list[str]:
    """Unpack a tar below `destination`, which is made; the names, in order.

    Raises BadRequestError for an entry that would leave the destination, replace a file, or is of a kind that
    archives of ours never have, and for a file that is no tar.
    """
    if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
        raise BadRequestError(f"{destination} is not a folder", code="destinationNotFolder")
    destination.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    folders: list[tuple[Path, int]] = []
    links: list[Path] = []
    try:
        with tarfile.open(fileobj=archive, mode="r|") as tar:
            for entry in tar:
                if stopped.is_set():
                    raise StoppedError
                target = _target(destination, entry.name)
                _unpack_one(tar, entry, target, destination, folders)
                names.append(entry.name)
                if entry.issym():
                    links.append(target)
    except tarfile.TarError as error:
        raise BadRequestError(f"the archive cannot be read: {error}", code="archiveCorrupt") from error
    finally:
        _require_no_way_out(destination, links)
    for folder, mode in reversed(folders):  # only now: one may be read-only
        folder.chmod(mode)
    return names


def _target(destination: Path, name: str) -> Path:
    """Where an entry goes. No folder on the way may be a link: it could have come with the archive."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise BadRequestError(f"the archive's entry {name!r} leads out of the destination", code="archiveEntryRefused")
    path = destination
    for part in parts[:-1]:
        path /= part
        if path.is_symlink():
            raise BadRequestError(f"the archive's entry {name!r} passes through a link", code="archiveEntryRefused")
    return path / parts[-1]


def _unpack_one(
    tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path, destination: Path, folders: list[tuple[Path, int]]
) -> None:
    if entry.isdir():
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise _exists(entry)
        if not target.is_dir():
            target.mkdir(parents=True)
            folders.append((target, stat.S_IMODE(entry.mode)))
        return
    if target.is_symlink() or target.exists():
        raise _exists(entry)
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.isreg() or entry.ischr() or entry.isblk() or entry.isfifo():
        _write(tar, entry, target)
    elif entry.issym():
        _require_inside(destination, target.parent, entry)
        target.symlink_to(entry.linkname)
    elif entry.islnk():
        _link(destination, target, entry)
    else:
        raise BadRequestError(f"the archive's entry {entry.name!r} is of an unknown kind", code="archiveEntryRefused")


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(entry) if entry.isreg() else None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
        while source is not None and (chunk := source.read(_COPY_BYTES)):
            file.write(chunk)
        # No set-user-id: who packed it is not who runs it.
        os.fchmod(file.fileno(), stat.S_IMODE(entry.mode) & 0o777)
    os.utime(target, (entry.mtime, entry.mtime))


def _require_inside(destination: Path, start: Path, entry: tarfile.TarInfo) -> None:
    """A link's target, taken as text, has to be inside."""
    aim = os.path.normpath(start / entry.linkname)
    root = os.path.normpath(destination)
    if os.path.isabs(entry.linkname) or not (aim == root or aim.startswith(root + os.sep)):  # noqa: PTH117
        raise BadRequestError(
            f"the archive's link {entry.name!r} leads out of the destination", code="archiveEntryRefused"
        )


def _require_no_way_out(destination: Path, links: list[Path]) -> None:
    """Where links lead is known only when all are there: one may go through another. Those that lead out go."""
    root = destination.resolve()
    leading_out = [link for link in links if not Path(os.path.realpath(link)).is_relative_to(root)]
    for link in leading_out:
        link.unlink()
    if leading_out:
        raise BadRequestError(
            f"the archive's link {leading_out[0].relative_to(destination).as_posix()!r} leads out of the destination",
            code="archiveEntryRefused",
        )


def _link(destination: Path, target: Path, entry: tarfile.TarInfo) -> None:
    """A hard link: its target is the path of an earlier entry of the archive."""
    source = _target(destination, entry.linkname)
    if source.is_symlink() or not source.is_file():
        raise BadRequestError(
            f"the archive's link {entry.name!r} refers to no file of the archive", code="archiveEntryRefused"
        )
    target.hardlink_to(source)


def _exists(entry: tarfile.TarInfo) -> BadRequestError:
    return BadRequestError(f"{entry.name!r}: the file already exists", code="fileExists")
