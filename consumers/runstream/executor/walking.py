"""Walking a tree that others change: by descriptors, without recursion, without following links.

Two descriptors are enough for any depth: the way back is `..`, taken only to the directory that was come from.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from runstream.errors import BadRequestError
from runstream.executor.beneath import open_beneath
from runstream.executor.removal import printable

T = TypeVar("T")

_READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


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
    """What the walker noted of its directory."""


@dataclass(slots=True)
class _Level(Generic[T]):
    identity: tuple[int, int]
    names: list[str]
    path: str
    note: T


class TreeWalk(Generic[T]):
    """Visits what is in a directory, each directory before what is in it, names in order."""

    def __init__(self, top: int, note: T) -> None:
        """Own nothing of `top`, an open directory. `note` is what its entries have as `above`."""
        self._here = os.open(".", _READABLE, dir_fd=top)
        self._levels = [_Level(_identity(self._here), _names(self._here), "", note)]

    def close(self) -> None:
        """Close what is open."""
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
                continue  # it went since the directory was listed
            yield Entry(self._here, name, level.path + name, status, level.note)

    def enter(self, entry: Entry[T], note: T) -> None:
        """Visit what is in a directory next: the entry that came last."""
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


def _names(directory: int) -> list[str]:
    """Return the names in an open directory, the last one first."""
    with os.scandir(directory) as entries:
        return sorted((entry.name for entry in entries), reverse=True)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
