"""Files beneath a directory: opened, walked and removed without a link, `..` or an absolute path leading out of it.

This holds while other processes rename, replace and link entries on the way. `openat2` does it in one system call;
where it is missing (older kernels, seccomp filters), each component is opened in turn, without following links. Walking
and removing use descriptors and no recursion: a task can make a tree of any depth, with any names and modes. Entries
that cannot be removed are counted and named.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Generic, Self, TypeVar

from runstream.errors import BadRequestError
from runstream.open_files import out_of_files

FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags that open a directory as the starting point of further calls."""

_SYS_OPENAT2 = 437
"""The same number on every architecture."""
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_PATH_MAX = 4096
_MAX_LINKS = 40
"""Maximum number of links followed on one path, as in the kernel."""
_UNAVAILABLE = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN, errno.E2BIG, errno.EINVAL})
"""Errors of a missing call, a filter, or a concurrent rename, after which the slow walk decides."""


class Links(enum.IntEnum):
    """What happens at a symbolic link; the values are the kernel's."""

    REFUSE = 0x0C
    """Fail with ELOOP."""
    BENEATH = 0x08
    """Follow it unless it is absolute or leaves the directory: EXDEV."""
    IN_ROOT = 0x10
    """Follow it as if the directory were `/`."""


class AbsoluteLinkError(OSError):
    """A link on the path is absolute; `beyond` is its target joined with the rest of the path."""

    def __init__(self, path: str, beyond: str) -> None:
        super().__init__(errno.EXDEV, os.strerror(errno.EXDEV), path)
        self.beyond = beyond


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def open_beneath(
    directory: int, path: str, flags: int, mode: int = 0, *, links: Links = Links.REFUSE, same_mount: bool = False
) -> int:
    """Open `path` relative to an open directory and return its descriptor, which is not inherited by programs.

    With `same_mount`, a mount point on the way is EXDEV. Raises OSError as `os.open` does.
    """
    flags |= os.O_CLOEXEC
    if len(os.fsencode(path)) < _PATH_MAX:
        descriptor = openat2(directory, path, flags, mode, links | (_RESOLVE_NO_XDEV if same_mount else 0))
        if descriptor >= 0:
            return descriptor
    return walk_beneath(directory, path, flags, mode, links=links, same_mount=same_mount)


def openat2(directory: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """Return the descriptor; -1 if the kernel cannot decide. Raises OSError for a path that it refuses."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    how = _OpenHow(flags, mode, resolve | _RESOLVE_NO_MAGICLINKS)
    descriptor = int(_libc().syscall(_SYS_OPENAT2, directory, name, ctypes.byref(how), ctypes.sizeof(how)))
    if descriptor < 0 and (number := ctypes.get_errno()) not in _UNAVAILABLE:
        raise OSError(number, os.strerror(number), path)
    return descriptor


def walk_beneath(
    directory: int, path: str, flags: int, mode: int = 0, *, links: Links = Links.REFUSE, same_mount: bool = False
) -> int:
    """Open a path as `open_beneath` does, without openat2 and for paths of any length.

    Raises AbsoluteLinkError for an absolute link that is not followed.
    """
    parts = _parts(path, links)
    keep = links is not Links.REFUSE or ".." in parts
    with _Descent(directory, keep=keep, same_mount=same_mount) as descent:
        followed = 0
        while parts:
            part = parts.pop()
            if part == "..":
                if not descent.up() and links is not Links.IN_ROOT:
                    raise _refused(errno.EXDEV, path)
                continue
            last = not parts
            target = None if last and flags & (os.O_NOFOLLOW | os.O_EXCL) else _link(descent.here, part)
            if target is None:
                if last:
                    return descent.open(part, flags | os.O_NOFOLLOW, mode)
                descent.down(part)
                continue
            followed += 1
            if links is Links.REFUSE or followed > _MAX_LINKS:
                raise _refused(errno.ELOOP, path)
            if target.startswith("/"):
                if links is Links.BENEATH:
                    raise AbsoluteLinkError(path, "/".join((target, *reversed(parts))))
                descent.to_top()
            parts += _parts(target, links)
        return descent.open(".", flags, mode)


def _parts(path: str, links: Links) -> list[str]:
    """Return the components of a path, the last one first."""
    if not path:
        raise _refused(errno.ENOENT, path)
    if path.startswith("/") and links is not Links.IN_ROOT:
        raise _refused(errno.EXDEV, path)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.endswith(("/", "/.")) and parts:
        parts.append(".")
    return parts[::-1]


def _link(directory: int, name: str) -> str | None:
    """Return the target of a symbolic link; None for anything else."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _refused(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


class _Descent:
    """The directories from the top down to the current one. `..` returns to one of these, even if it was moved
    meanwhile."""

    def __init__(self, top: int, *, keep: bool, same_mount: bool) -> None:
        """Keep all directories open for `..` if `keep`; otherwise only the last, since a path may be longer than the
        limit of open files."""
        self._top = top
        self._keep = keep
        self._device = os.fstat(top).st_dev if same_mount else None
        self._below: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.to_top()

    @property
    def here(self) -> int:
        return self._below[-1] if self._below else self._top

    def down(self, name: str) -> None:
        below = self.open(name, FOLDER | os.O_NOFOLLOW, 0)
        if not self._keep:
            self.up()
        self._below.append(below)

    def up(self) -> bool:
        """Return to the parent; return False at the top."""
        if self._below:
            os.close(self._below.pop())
            return True
        return False

    def to_top(self) -> None:
        while self.up():
            pass

    def open(self, name: str, flags: int, mode: int) -> int:
        descriptor = os.open(name, flags, mode, dir_fd=self.here)
        if self._device is not None and os.fstat(descriptor).st_dev != self._device:
            os.close(descriptor)
            raise _refused(errno.EXDEV, name)
        return descriptor


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def components(path: str) -> Sequence[str]:
    """Return the components of a path, without empty ones and `.`."""
    return [part for part in path.split("/") if part not in ("", ".")]


T = TypeVar("T")

_READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK


class ChangedError(BadRequestError):
    """A file changed while it was read."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{printable(path)!r} changed while it was saved", code="fileChanged")


class UnreadableError(BadRequestError):
    """A file may not be read by the task's user."""

    def __init__(self, path: str, reason: OSError) -> None:
        super().__init__(f"{printable(path)!r} cannot be read: {reason.strerror}", code="fileNotReadable")


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """Something in the tree."""

    folder: int
    """The open directory that it is in; until the next entry."""
    name: str
    path: str
    """Relative to the top of the tree."""
    status: os.stat_result
    above: T
    """The walker's note about its directory."""


@dataclass(slots=True)
class _Level(Generic[T]):
    identity: tuple[int, int]
    names: list[str]
    path: str
    note: T


class TreeWalk(Generic[T]):
    """A walk over the entries below a directory: each directory before its entries, in the order of names."""

    def __init__(self, top: int, note: T) -> None:
        """Walk below `top`, an open directory that the caller closes; its entries get `note` as their `above`."""
        self._here = os.open(".", _READABLE, dir_fd=top)
        try:
            self._levels = [_Level(_identity(self._here), _names(self._here), "", note)]
        except BaseException:
            os.close(self._here)
            raise

    def close(self) -> None:
        """Close the open directories."""
        os.close(self._here)

    def __iter__(self) -> Iterator[Entry[T]]:
        while self._levels:
            level = self._levels[-1]
            if not level.names:
                self._leave()
                continue
            name = level.names.pop()
            try:
                status = os.stat(name, dir_fd=self._here, follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed since the directory was listed
            yield Entry(self._here, name, level.path + name, status, level.note)

    def enter(self, entry: Entry[T], note: T) -> None:
        """Visit the entries of the last visited directory next."""
        try:
            below = open_beneath(self._here, entry.name, _READABLE)
        except FileNotFoundError:
            return
        except PermissionError as error:
            raise UnreadableError(entry.path, error) from error
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise ChangedError(entry.path) from error
            raise
        os.close(self._here)
        self._here = below
        self._levels.append(_Level(_identity(below), _names(below), f"{entry.path}/", note))

    def _leave(self) -> None:
        left = self._levels.pop()
        if self._levels:
            above = os.open("..", _READABLE, dir_fd=self._here)
            os.close(self._here)
            self._here = above
            if _identity(above) != self._levels[-1].identity:
                raise ChangedError(left.path.rstrip("/"))


class FolderCursor:
    """An open directory that moves from one path below `top` to the next by single steps.

    Visiting the directories of a tree one after the other thus takes linear time, at any depth, with one descriptor.
    """

    def __init__(self, top: int) -> None:
        """`top` is an open directory that the caller closes."""
        self._top = top
        self._here = os.open(".", FOLDER, dir_fd=top)
        self._names: list[str] = []
        """The names of the directories from below the top to here."""
        self._identities = [_identity(top)]
        """Those of the top and of each of these directories."""

    def close(self) -> None:
        """Close the directory."""
        os.close(self._here)

    def go(self, folders: list[str], *, make: bool = False) -> int:
        """Move to a directory and return its descriptor, which is valid until the next call.

        With `make`, missing directories are created. Raises OSError for a link or a file on the way.
        """
        shared = min(len(self._names), len(folders))
        if self._names[:shared] != folders[:shared]:
            shared = next(at for at, name in enumerate(folders) if name != self._names[at])
        while len(self._names) > shared:
            if not self._up():
                self._to(os.open(".", FOLDER, dir_fd=self._top))
                self._names.clear()
                del self._identities[1:]
        for name in folders[len(self._names) :]:
            self._down(name, make=make)
        return self._here

    def _down(self, name: str, *, make: bool) -> None:
        try:
            below = open_beneath(self._here, name, FOLDER)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):  # another process made it: open it
                os.mkdir(name, 0o755, dir_fd=self._here)
            below = open_beneath(self._here, name, FOLDER)
        self._to(below)
        self._names.append(name)
        self._identities.append(_identity(below))

    def _up(self) -> bool:
        """Return to the parent; return False if it is another one than before: the directory was moved."""
        try:
            above = os.open("..", FOLDER, dir_fd=self._here)
        except OSError:
            return False
        self._to(above)
        self._names.pop()
        self._identities.pop()
        return _identity(above) == self._identities[-1]

    def _to(self, directory: int) -> None:
        os.close(self._here)
        self._here = directory


def _names(directory: int) -> list[str]:
    """Return the names in an open directory, the last one first."""
    with os.scandir(directory) as entries:
        return sorted((entry.name for entry in entries), reverse=True)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


_ALL = 0o700
_FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
_IMMUTABLE_OR_APPEND = 0x10 | 0x20
_AGAIN = 100
"""Maximum number of directories that may turn out not to be empty."""
_SHOWN_LETTERS = 300
_NAMED = 3
"""Maximum number of problems that are kept; the others are only counted."""


@dataclass(slots=True)
class Problems:
    """The paths that could not be removed."""

    count: int = 0
    named: list[str] = field(default_factory=list)
    """The first of them: path and reason."""
    out_of_files: bool = False
    """True if this process had no file descriptor left for one of them: removing it again may succeed."""

    def add(self, path: str, error: OSError) -> None:
        """Count a problem, and keep it if it is one of the first."""
        self.count += 1
        self.out_of_files = self.out_of_files or out_of_files(error)
        if len(self.named) < _NAMED:
            reason = "a file system is mounted on it" if error.errno == errno.EXDEV else error.strerror
            self.named.append(f"{printable(path)}: {reason}")

    def __str__(self) -> str:
        more = f" and {self.count - len(self.named)} more" if self.count > len(self.named) else ""
        return "; ".join(self.named) + more


@dataclass(slots=True)
class _Removed:
    """A directory that is being removed, and its remaining subdirectories."""

    name: str
    identity: tuple[int, int]
    folders: list[str]
    kept: bool = False
    """Whether an entry in it cannot be removed."""


def remove_tree(path: Path) -> Problems:
    """Remove a file, or a directory with its contents; return what could not be removed. A missing path is no
    problem."""
    problems = Problems()
    try:
        with closing(os.open(path.parent, _READABLE)) as parent:
            _Removal(parent, str(path), problems).run()
    except FileNotFoundError:
        pass  # Its parent does not exist either.
    except OSError as error:
        problems.add(str(path), error)
    return problems


class _Removal:
    def __init__(self, parent: int, path: str, problems: Problems) -> None:
        self._path = path
        self._problems = problems
        self._again = _AGAIN
        self._here = os.dup(parent)
        self._levels = [_Removed("", _identity(parent), [path.rpartition("/")[2]])]

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

    def _enter(self, level: _Removed, name: str) -> None:
        """Go down into a directory and remove its files; remove a file that has taken its place."""
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
        self._levels.append(_Removed(name, _identity(below), []))
        self._remove_files()

    def _remove_files(self) -> None:
        """Remove all files in this directory, and record its subdirectories."""
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
        """Return to the parent, and remove the directory just left."""
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

    def _keep(self, level: _Removed, name: str, error: OSError) -> None:
        level.kept = True
        inside = [each.name for each in self._levels[2:]]
        shown = "/".join(filter(None, [*inside, name])) if len(self._levels) > 1 else ""
        self._problems.add(f"{self._path}/{shown}".rstrip("/"), error)


def _opened(folder: int, name: str) -> int:
    """Open a directory so that its entries can be removed, regardless of its mode and flags."""
    try:
        below = open_beneath(folder, name, _READABLE, same_mount=True)
    except PermissionError:
        with closing(open_beneath(folder, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, same_mount=True)) as found:
            os.chmod(f"/proc/self/fd/{found}", _ALL)  # noqa: PTH101 -- the way to change what O_PATH opened
        below = open_beneath(folder, name, _READABLE, same_mount=True)
    if os.fstat(below).st_mode & _ALL != _ALL:
        with contextlib.suppress(
            OSError
        ):  # It belongs to another user; its entries are reported when they cannot be removed.
            os.fchmod(below, _ALL)
    return below


def _make_mutable(folder: int, name: str) -> None:
    """Clear the flags that protect a file or its directory from changes, if that is allowed."""
    for path in (".", name):
        with contextlib.suppress(OSError):  # no file, no permission, or no such flags: the second attempt shows it
            if not stat.S_ISREG(mode := os.lstat(path, dir_fd=folder).st_mode) and not stat.S_ISDIR(mode):
                continue
            with closing(open_beneath(folder, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as found:
                flags = struct.unpack("i", fcntl.ioctl(found, _FS_IOC_GETFLAGS, b"\0" * 4))[0]
                if flags & _IMMUTABLE_OR_APPEND:
                    fcntl.ioctl(found, FS_IOC_SETFLAGS, struct.pack("i", flags & ~_IMMUTABLE_OR_APPEND))


def printable(name: str) -> str:
    """Return a name on one line for display: unprintable characters escaped, the middle of a long name cut out."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    if len(text) > _SHOWN_LETTERS:
        text = f"{text[: _SHOWN_LETTERS // 2]}…{text[-_SHOWN_LETTERS // 2 :]}"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
