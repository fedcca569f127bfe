"""Room on the executor's disk: how much it needs to take tasks, and room reserved for the end of a file."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

NEEDED_BYTES = 64 << 20
"""Free bytes without which no task begins; on a disk of less than ten times as much, a tenth of the disk."""
_KEEP_SIZE = 1
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_LIBC = ctypes.CDLL(None, use_errno=True)


def lack_of_room(folder: Path) -> str:
    """Say why there is no room for a task; empty when there is. Blocks. Raises OSError."""
    usage = shutil.disk_usage(folder)
    needed = min(NEEDED_BYTES, usage.total // 10)
    if usage.free >= needed:
        return ""
    return f"disk full: {usage.free >> 10} KiB left at {folder}, a task needs {needed >> 10}"


def is_full(error: BaseException) -> bool:
    """Whether a write failed because the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def reserve(file: int, begin: int, length: int) -> bool:
    """Reserve the file's blocks of this range; its size stays. False where the file system has no reservations.

    Raises OSError when there is no room.
    """
    if not hasattr(_LIBC, "fallocate"):
        return False
    result = _LIBC.fallocate(file, _KEEP_SIZE, ctypes.c_int64(begin), ctypes.c_int64(length))
    if result == 0:
        return True
    number = ctypes.get_errno()
    if number in _FULL:
        raise OSError(number, os.strerror(number))
    return False
