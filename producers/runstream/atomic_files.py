"""Files that appear whole or not at all.

A file is written under a temporary name and renamed once it is complete. Writers in a shared folder hold a lock on
their temporary file. The kernel releases the lock of a process that dies, so a temporary file that can be locked has no
writer, and `sweep` removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from typing import BinaryIO, Self


def replace_file(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file, in place of any other; synced first, if it is to survive a power failure. Raises OSError.

    For files with one writer: the temporary name is fixed, so an interrupted write leaves at most one file.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
            if durable:
                sync_file(file)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def sync_file(file: BinaryIO) -> None:
    """Bring the written bytes of a file to the disk. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the entries of a folder to the disk: a new name is durable only then. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class TemporaryFile:
    """A new file in a folder for temporary files, open for writing and locked; its writer renames or discards it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file

    @classmethod
    def create(cls, folder: Path, mode: int) -> Self:
        """Create a file with this mode. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            path = folder / secrets.token_hex(16)
            file = os.fdopen(os.open(path, flags, mode), "wb")
            # A sweep may lock and remove the file between the line above and the lock: then create another one.
            if _lock(file.fileno(), unsupported=True) and os.fstat(file.fileno()).st_nlink:
                return cls(path, file)
            file.close()

    def discard(self) -> None:
        """Close the file, and remove it unless it was renamed."""
        with contextlib.suppress(OSError):  # bytes that cannot be flushed are discarded anyway
            self.file.close()
        self.path.unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Remove the temporary files of dead writers; return their number. Raises OSError."""
    return sum(_remove_unlocked(path) for path in list(folder.iterdir()))


def _remove_unlocked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # renamed since the folder was read
        return False
    try:
        if not _lock(descriptor, unsupported=False):
            return False
        path.unlink()
        return True
    except FileNotFoundError:  # renamed since it was opened: the lock is on a complete file
        return False
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, unsupported: bool) -> bool:
    """Try to lock a file; return whether it worked, or `unsupported` on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return unsupported
    return True
