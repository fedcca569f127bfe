"""Removing a tree that a task made: of any depth, with any names and modes, without leaving it.

The tree is hostile: links are not followed, mount points are not entered, unreadable and immutable folders are
opened up. Two descriptors are enough for any depth.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

from runstream.executor.beneath import closing, open_beneath

_READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
_ALL = 0o700
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602
_IMMUTABLE_OR_APPEND = 0x10 | 0x20
_AGAIN = 100
"""How many directories may turn out not to be empty, before that is a problem."""
_SHOWN_LETTERS = 300
_NAMED = 3
"""How many problems are kept; the others are only counted."""


@dataclass(slots=True)
class Problems:
    """What could not be removed."""

    count: int = 0
    named: list[str] = field(default_factory=list)
    """The first of them: path and reason."""

    def add(self, path: str, error: OSError) -> None:
        """Count one more."""
        self.count += 1
        if len(self.named) < _NAMED:
            reason = "a file system is mounted on it" if error.errno == errno.EXDEV else error.strerror
            self.named.append(f"{printable(path)}: {reason}")

    def __str__(self) -> str:
        more = f" and {self.count - len(self.named)} more" if self.count > len(self.named) else ""
        return "; ".join(self.named) + more


@dataclass(slots=True)
class _Level:
    """A directory that is being removed, with those below it that are still there."""

    name: str
    identity: tuple[int, int]
    folders: list[str]
    kept: bool = False
    """Whether something in it cannot be removed."""


def remove_tree(path: Path) -> Problems:
    """Remove a file or a directory with everything in it; return what is left. A missing path is no problem."""
    problems = Problems()
    try:
        with closing(os.open(path.parent, _READABLE)) as parent:
            _Removal(parent, str(path), problems).run()
    except FileNotFoundError:
        pass  # its parent is not there either
    except OSError as error:
        problems.add(str(path), error)
    return problems


class _Removal:
    def __init__(self, parent: int, path: str, problems: Problems) -> None:
        self._path = path
        self._problems = problems
        self._again = _AGAIN
        self._here = os.dup(parent)
        self._levels = [_Level("", _identity(parent), [path.rpartition("/")[2]])]

    def run(self) -> None:
        try:
            while True:
                level = self._levels[-1]
                if level.folders:
                    self._enter(level, level.folders.pop())
                elif len(self._levels) == 1:
                    return
                else:
                    self._leave()
        finally:
            os.close(self._here)

    def _enter(self, level: _Level, name: str) -> None:
        """Go down into a directory and remove its files; a file in its place is removed itself."""
        try:
            below = _opened(self._here, name)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP) or not self._unlink(self._here, name):
                self._keep(level, name, error)
            return
        os.close(self._here)
        self._here = below
        self._levels.append(_Level(name, _identity(below), []))
        self._remove_files()

    def _remove_files(self) -> None:
        """Remove all in this directory that is no directory, and note which those are."""
        level = self._levels[-1]
        try:
            with os.scandir(self._here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        level.folders.append(entry.name)
                    else:
                        self._unlink(self._here, entry.name)
        except OSError as error:
            self._keep(level, "", error)

    def _unlink(self, folder: int, name: str) -> bool:
        level = self._levels[-1]
        for attempt in range(2):
            try:
                os.unlink(name, dir_fd=folder)
                return True
            except FileNotFoundError:
                return True
            except OSError as error:
                if attempt or error.errno != errno.EPERM:
                    self._keep(level, name, error)
                    return False
                _make_mutable(folder, name)
        return True

    def _leave(self) -> None:
        """Return to the parent, and remove the directory that was left."""
        done = self._levels.pop()
        above = self._levels[-1]
        parent = os.open("..", _READABLE, dir_fd=self._here)
        if _identity(parent) != above.identity:
            os.close(parent)
            raise OSError(errno.ESTALE, "it was moved while it was removed")
        os.close(self._here)
        self._here = parent
        if done.kept:
            above.kept = True
            return
        for attempt in range(2):
            try:
                os.rmdir(done.name, dir_fd=parent)
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno == errno.ENOTEMPTY and self._again > 0:  # it was filled, or not listed in full
                    self._again -= 1
                    above.folders.append(done.name)
                    return
                if attempt or error.errno != errno.EPERM:
                    self._keep(above, done.name, error)
                    return
                _make_mutable(parent, done.name)

    def _keep(self, level: _Level, name: str, error: OSError) -> None:
        level.kept = True
        inside = [each.name for each in self._levels[2:]]
        shown = "/".join(filter(None, [*inside, name])) if len(self._levels) > 1 else ""
        self._problems.add(f"{self._path}/{shown}".rstrip("/"), error)


def _opened(folder: int, name: str) -> int:
    """Open a directory so that what is in it can be removed, whatever its mode and flags."""
    try:
        below = open_beneath(folder, name, _READABLE, same_mount=True)
    except PermissionError:
        with closing(open_beneath(folder, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, same_mount=True)) as found:
            os.chmod(f"/proc/self/fd/{found}", _ALL)  # noqa: PTH101 -- the way to change what O_PATH opened
        below = open_beneath(folder, name, _READABLE, same_mount=True)
    if os.fstat(below).st_mode & _ALL != _ALL:
        with contextlib.suppress(OSError):  # of another user: what cannot be removed is told of then
            os.fchmod(below, _ALL)
    return below


def _make_mutable(folder: int, name: str) -> None:
    """Take away the flags that keep a file or its directory from being changed, where that is allowed."""
    for path in (".", name):
        with contextlib.suppress(OSError):  # no file, no right, no such flags: the second attempt tells
            if not stat.S_ISREG(mode := os.lstat(path, dir_fd=folder).st_mode) and not stat.S_ISDIR(mode):
                continue
            with closing(open_beneath(folder, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as found:
                flags = struct.unpack("i", fcntl.ioctl(found, _FS_IOC_GETFLAGS, b"\0" * 4))[0]
                if flags & _IMMUTABLE_OR_APPEND:
                    fcntl.ioctl(found, _FS_IOC_SETFLAGS, struct.pack("i", flags & ~_IMMUTABLE_OR_APPEND))


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def printable(name: str) -> str:
    """Return a name for people, on one line: what is no text is escaped, and the middle of a long one is cut."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    if len(text) > _SHOWN_LETTERS:
        text = f"{text[: _SHOWN_LETTERS // 2]}…{text[-_SHOWN_LETTERS // 2 :]}"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
