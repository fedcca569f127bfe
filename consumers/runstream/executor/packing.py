"""Packing files of a task into a tar (rules step-20 to step-22). Blocking: to be run as the task's user, in a thread.

Links are stored as they are, whatever they lead to. Folders of several sources merge; a file that is selected twice
is stored once; two different files of one path are refused.
"""

from __future__ import annotations

import os
import stat
import tarfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from runstream.errors import BadRequestError
from runstream.events.run_config import SaveContent
from runstream.executor.beneath import closing, open_beneath
from runstream.executor.ending import StoppedError
from runstream.executor.globs import Glob, State
from runstream.executor.removal import printable
from runstream.executor.task_root import TaskRoot
from runstream.executor.walking import ChangedError, Entry, TreeWalk

COPY_BYTES = 256 << 10
MAX_PATH_BYTES = 16 << 10
"""Of a path in an archive."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Packed:
    """What an archive holds."""

    entries: int
    warnings: tuple[str, ...]
    """What selected nothing, for people."""


def pack(
    target: BinaryIO, contents: Sequence[SaveContent], files: TaskRoot, folder: str, stopped: threading.Event
) -> Packed:
    """Write a tar of what the contents select; their sources are relative to `folder`, a path of the task.

    Raises BadRequestError for a source that is no folder, a malformed pattern, two different files of one path, and
    a file that changes meanwhile or cannot be read.
    """
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        packing = _Packing(tar, stopped)
        try:
            for content in contents:
                packing.add(content, _source(files, files.path(content.source_dir or ".", folder), content))
        except OSError as error:
            where = f"{printable(str(error.filename))}: " if error.filename else ""
            raise BadRequestError(f"{where}{error.strerror}", code="fileNotReadable") from error
        finally:
            packing.close()
    warnings = packing.warnings or ([] if packing.names else ["nothing is selected: the archive is empty"])
    return Packed(len(packing.names), tuple(warnings))


def _source(files: TaskRoot, path: str, content: SaveContent) -> int:
    try:
        return files.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadRequestError(f"source_dir {content.source_dir!r} is not a folder", code="sourceNotFolder") from error


@dataclass(frozen=True, slots=True)
class _Selection:
    """What the patterns say about a directory."""

    states: tuple[State, ...]
    whole: bool
    """Whether the directory is taken with all that is in it."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where an entry of the archive came from."""

    source: int
    """The open directory that its content has as source."""
    path: str
    status: os.stat_result


class _Packing:
    """One archive that is being written."""

    def __init__(self, tar: tarfile.TarFile, stopped: threading.Event) -> None:
        self.names: dict[str, _Origin] = {}
        self.warnings: list[str] = []
        self._tar = tar
        self._stopped = stopped
        self._sources: list[int] = []

    def close(self) -> None:
        while self._sources:
            os.close(self._sources.pop())

    def add(self, content: SaveContent, source: int) -> None:
        """Add what one content selects; owns the descriptor of its source."""
        self._sources.append(source)
        globs = [Glob(pattern) for pattern in content.paths]
        walk = TreeWalk(source, _Selection(tuple(glob.start for glob in globs), whole=False))
        found: set[int] = set()
        try:
            for entry in walk:
                if self._stopped.is_set():
                    raise StoppedError
                states = tuple(
                    glob.after(state, entry.name) for glob, state in zip(globs, entry.above.states, strict=True)
                )
                selecting = {at for at, glob in enumerate(globs) if glob.selects(states[at])}
                found |= selecting
                whole = entry.above.whole or bool(selecting)
                if whole:
                    self._add_entry(_joined(content.dest_dir, entry.path), entry, source)
                goes_on = whole or any(glob.goes_on(state) for glob, state in zip(globs, states, strict=True))
                if goes_on and stat.S_ISDIR(entry.status.st_mode):
                    walk.enter(entry, _Selection(states, whole))
        finally:
            walk.close()
        self._warn(content, found)

    def _warn(self, content: SaveContent, found: set[int]) -> None:
        source = content.source_dir
        where = f"below {printable(source)}" if source not in ("", ".") else "in the working directory"
        for at, pattern in enumerate(content.paths):
            if at not in found:
                self.warnings.append(f"pattern {printable(pattern)!r} selects nothing {where}{_why_not(pattern)}")
        if not content.paths:
            self.warnings.append(f"no paths are given: nothing is taken {where} (`paths: ['**']` takes everything)")

    def _add_entry(self, name: str, entry: Entry[_Selection], source: int) -> None:
        if stat.S_ISSOCK(entry.status.st_mode):
            return
        if len(os.fsencode(name)) > MAX_PATH_BYTES:
            raise BadRequestError(f"the path {printable(name)!r} is too long to be saved", code="pathTooLong")
        origin = _Origin(source, entry.path, entry.status)
        if name in self.names:
            self._require_same(name, self.names[name], origin)
            return
        self.names[name] = origin
        if stat.S_ISREG(entry.status.st_mode):
            self._add_file(name, entry)
            return
        info = self._described(name, entry.status)
        if stat.S_ISLNK(entry.status.st_mode):
            try:
                info.linkname = os.readlink(entry.name, dir_fd=entry.folder)
            except OSError as error:
                raise ChangedError(entry.path) from error
        self._tar.addfile(info)

    def _add_file(self, name: str, entry: Entry[_Selection]) -> None:
        with _opened(entry.folder, entry.name, entry.path) as file:
            info = self._described(name, os.fstat(file.fileno()))
            if info.islnk():
                self._tar.addfile(info)
                return
            try:
                self._tar.addfile(info, cast("BinaryIO", _Interruptible(file, self._stopped)))
            except OSError as error:
                if error.errno is None:  # tarfile says so when a file ends early
                    raise ChangedError(entry.path) from error
                raise

    def _described(self, name: str, status: os.stat_result) -> tarfile.TarInfo:
        """Return the header of an entry. A second name of a file that is stored is a hard link to the first."""
        info = tarfile.TarInfo(name)
        mode = status.st_mode
        info.mode, info.mtime = stat.S_IMODE(mode), max(0, int(status.st_mtime))
        identity = (status.st_ino, status.st_dev)
        self._tar.members = []  # type: ignore[attr-defined]  # it would keep them all
        if stat.S_ISREG(mode):
            first = self._tar.inodes.get(identity)  # type: ignore[attr-defined]
            if status.st_nlink > 1 and first is not None:
                info.type, info.linkname = tarfile.LNKTYPE, first
            else:
                self._tar.inodes[identity] = name  # type: ignore[attr-defined]
                info.size = status.st_size
        elif stat.S_ISDIR(mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(mode):
            info.type = tarfile.SYMTYPE
        else:  # restored as an empty file, never as a device
            info.type = tarfile.FIFOTYPE
        return info

    def _require_same(self, name: str, first: _Origin, second: _Origin) -> None:
        if first.path == second.path and (first.status.st_dev, first.status.st_ino) == (
            second.status.st_dev,
            second.status.st_ino,
        ):
            return
        kinds = {stat.S_IFMT(origin.status.st_mode) for origin in (first, second)}
        if kinds == {stat.S_IFDIR}:
            return
        same = False
        if kinds == {stat.S_IFLNK}:
            same = _target(first) == _target(second)
        elif kinds == {stat.S_IFREG} and first.status.st_mode == second.status.st_mode:
            same = self._same_content(first, second)
        if not same:
            raise BadRequestError(
                f"{printable(name)!r} would be two different files in the archive:"
                f" {printable(first.path)!r} of one source_dir, {printable(second.path)!r} of another",
                code="duplicatePath",
                hint="give one of them another dest_dir",
            )

    def _same_content(self, first: _Origin, second: _Origin) -> bool:
        if first.status.st_size != second.status.st_size:
            return False
        with (
            _opened(first.source, first.path, first.path) as one,
            _opened(second.source, second.path, second.path) as other,
        ):
            while chunk := one.read(COPY_BYTES):
                if self._stopped.is_set():
                    raise StoppedError
                if chunk != other.read(len(chunk)):
                    return False
            return not other.read(1)


def _target(origin: _Origin) -> str:
    with closing(open_beneath(origin.source, origin.path, os.O_PATH | os.O_NOFOLLOW)) as link:
        return os.readlink("", dir_fd=link)


def _opened(folder: int, name: str, path: str) -> BinaryIO:
    """Open a regular file for reading. Raises ChangedError when it is none any more."""
    try:
        descriptor = open_beneath(folder, name, _FILE)
    except PermissionError as error:
        raise BadRequestError(
            f"{printable(path)!r} cannot be read: {error.strerror}", code="fileNotReadable"
        ) from error
    except OSError as error:
        raise ChangedError(path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ChangedError(path)
    return os.fdopen(descriptor, "rb")


class _Interruptible:
    """A file whose reading ends when the task does."""

    def __init__(self, file: BinaryIO, stopped: threading.Event) -> None:
        self._file = file
        self._stopped = stopped

    def read(self, size: int) -> bytes:
        if self._stopped.is_set():
            raise StoppedError
        return self._file.read(size)


def _joined(dest_dir: str, relative: str) -> str:
    parts = [part for part in dest_dir.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadRequestError(f"dest_dir {dest_dir!r} leads out of the archive", code="invalidPath")
    return "/".join((*parts, relative))


def _why_not(pattern: str) -> str:
    """Return what a pattern that selects nothing may have been meant to be."""
    if pattern.startswith("/"):
        return ": patterns are relative to source_dir, which may be absolute"
    if pattern.startswith("~"):
        return ": `~` is known in source_dir alone"
    if "$" in pattern:
        return ": variables are not replaced"
    return ""
