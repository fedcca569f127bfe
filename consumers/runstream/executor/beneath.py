"""Opening files beneath a directory: no link, no `..` and no absolute path leads out of it.

This holds while others rename, replace and link what is on the way. `openat2` does it in one call of the kernel;
where that is missing (older kernels, seccomp filters), each component is opened by itself, without following links.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, Self

FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags that open a directory as the starting point of further calls."""

_SYS_OPENAT2 = 437
"""The same number on every architecture."""
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_PATH_MAX = 4096
_MAX_LINKS = 40
"""Links followed on one path, as in the kernel."""
_UNAVAILABLE = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN, errno.E2BIG, errno.EINVAL})
"""No such call, a filter, or a rename at the same moment: the walk finds out what is true."""


class Links(enum.IntEnum):
    """What happens at a symbolic link; the values are the kernel's."""

    REFUSE = 0x0C
    """Fail with ELOOP."""
    BENEATH = 0x08
    """Follow it unless it is absolute or leaves the directory: EXDEV."""
    IN_ROOT = 0x10
    """Follow it as if the directory were `/`."""


class AbsoluteLinkError(OSError):
    """A link on the way is absolute; `beyond` is the path that it and what follows it stand for."""

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
        descriptor = _openat2(directory, path, flags, mode, links | (_RESOLVE_NO_XDEV if same_mount else 0))
        if descriptor >= 0:
            return descriptor
    return walk_beneath(directory, path, flags, mode, links=links, same_mount=same_mount)


def _openat2(directory: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """Return the descriptor, or -1 where the kernel cannot say. Raises OSError for what it refuses."""
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
    """Do what `open_beneath` does without openat2, for paths of any length.

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
    """The directories from the top to here: `..` returns to one of these, wherever others moved it meanwhile."""

    def __init__(self, top: int, *, keep: bool, same_mount: bool) -> None:
        """`keep` them open, for `..`; else only the last, since a path may be longer than descriptors are many."""
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
        """Return whether there was a directory to return to."""
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
    """Return the components of a path that mean something."""
    return [part for part in path.split("/") if part not in ("", ".")]
