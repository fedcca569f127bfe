"""A file becomes an object only by a rename, when all of it is there; what a killed writer left is removed.

Writers hold a lock on their file as long as it has its temporary name. The kernel takes the lock from a process
that dies, so whoever gets the lock of a file knows that nobody writes it any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from typing import BinaryIO, Self

FILE_MODE = 0o660


class Temporary:
    """A new file in the folder for temporary ones, open for writing and locked."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make one. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            path = folder / secrets.token_hex(16)
            file = os.fdopen(os.open(path, flags, FILE_MODE), "wb")
            # Between these two lines a sweep may take the file for a leftover: then make another one.
            if _lock(file.fileno(), otherwise=True) and os.fstat(file.fileno()).st_nlink:
                return cls(path, file)
            file.close()

    def sync(self) -> None:
        """Bring what was written to the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def discard(self) -> None:
        """Close it, and remove it if it still has its temporary name."""
        with contextlib.suppress(OSError):  # what could not be flushed is discarded, and was reported when it was tried
            self.file.close()
        self.path.unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Remove the temporary files that nobody writes any more; gives how many. Raises OSError."""
    return sum(_swept(path) for path in list(folder.iterdir()))


def _swept(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # finished meanwhile
        return False
    try:
        if not _lock(descriptor, otherwise=False):
            return False
        path.unlink()
        return True
    except FileNotFoundError:  # finished meanwhile: what we have locked is an object
        return False
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, otherwise: bool) -> bool:
    """Whether we got the lock of the file; `otherwise` on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return otherwise
    return True
