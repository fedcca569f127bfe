"""A hint to ext4 that the folders in a folder have nothing to do with each other (`chattr +T`), so it spreads them.

Without it all tasks' folders share one group of inodes. ext4 does not give out an inode again for a minute, and each
new file looks through all of those that were freed in its group: where many short tasks come and go, that was a third
of the executor's CPU time.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_LONG = struct.calcsize("l")
_GET_FLAGS = 2 << 30 | _LONG << 16 | ord("f") << 8 | 1
_SET_FLAGS = 1 << 30 | _LONG << 16 | ord("f") << 8 | 2
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of linux/fs.h, which say long and mean int."""
_INT = struct.Struct("i")
_TOP_OF_HIERARCHIES = 0x00020000
"""FS_TOPDIR_FL."""


def spread(folder: Path) -> bool:
    """Give the hint for a folder; whether its file system takes it. Raises OSError for a folder that is not there."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _SET_FLAGS, _INT.pack(_flags(descriptor) | _TOP_OF_HIERARCHIES))
        return bool(_flags(descriptor) & _TOP_OF_HIERARCHIES)
    except OSError:  # it has no such hint, or the folder is somebody else's
        return False
    finally:
        os.close(descriptor)


def _flags(descriptor: int) -> int:
    flags: int = _INT.unpack(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(_INT.size)))[0]
    return flags
