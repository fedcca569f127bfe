"""Room on the executor's disk: how much it needs to take tasks, and spare room for the last lines of logs."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

NEEDED_BYTES = 64 << 20
"""Free bytes without which no task begins; on a disk of less than ten times as much, a tenth of the disk."""
_SPARE_BYTES = 1 << 20
_SPARE_SHARE = 64
"""A small disk spares at most this fraction of itself."""
_RELEASED_BYTES = 16 << 10
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


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


class SpareRoom:
    """Disk blocks held by a file, released so that a log on a full disk still gets its last line.

    One file serves all tasks: reserving blocks for each log would cost every step a transaction of the file system.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def refill(self) -> None:
        """Take the blocks again; on a disk that is full, take none. Blocks. Raises OSError."""
        total = min(_SPARE_BYTES, shutil.disk_usage(self._path.parent).total // _SPARE_SHARE)
        with self._path.open("ab") as file:
            if file.tell() < total:
                try:
                    os.posix_fallocate(file.fileno(), 0, total)
                except OSError as error:
                    if not is_full(error):
                        raise

    def release(self) -> bool:
        """Give back some of the blocks; False when none are left."""
        try:
            with self._path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                file.truncate(max(size - _RELEASED_BYTES, 0))
                return size > 0
        except OSError:  # the first tasks found the disk full already
            return False
