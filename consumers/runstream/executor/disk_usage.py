"""How much disk the files of a task take, and a watch that ends a task that takes too much.

No kernel interface limits a folder for every user and file system, so the folders are walked from time to time: a task
can be above the limit for as long as that takes. A single file is limited exactly, by `executor.task_file_bytes`.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from runstream.executor.beneath import FOLDER, closing, open_beneath

_READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
_BLOCK_BYTES = 512
_WALK_SECONDS = 10.0
"""How long one walk may take; what it has not seen by then is not counted."""
_FIRST_SECONDS = 0.25
"""When the first walk begins: a short task is spared a thread and the walk."""
_PAUSE_SECONDS = 3.0
_SHARE = 20
"""A walk takes at most one part in so many of the time."""


def disk_usage(folders: Iterable[Path], enough: int) -> int:
    """Return the bytes that files below these folders occupy, or some number above `enough`. Blocks."""
    until = time.monotonic() + _WALK_SECONDS
    total, linked = 0, set[tuple[int, int]]()
    for folder in folders:
        with closing(os.open(folder, FOLDER)) as top:
            waiting = ["."]
            while waiting and total <= enough and time.monotonic() < until:
                for path, found in _entries(top, waiting.pop()):
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(path)
                    elif found.st_nlink > 1:
                        if (found.st_dev, found.st_ino) in linked:
                            continue
                        linked.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * _BLOCK_BYTES
    return total


def _entries(top: int, path: str) -> list[tuple[str, os.stat_result]]:
    """Return what is in a folder; nothing where it is gone, another file system, or cannot be read."""
    try:
        with closing(open_beneath(top, path, _READABLE, same_mount=True)) as folder, os.scandir(folder) as entries:
            return [(f"{path}/{entry.name}", entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:  # the task changes its files meanwhile
        return []


async def watch_disk(folders: Iterable[Path], limit: int, passed: Callable[[], None]) -> None:
    """Call `passed` once the files take more than `limit` bytes."""
    kept = tuple(folders)
    await asyncio.sleep(_FIRST_SECONDS)
    while True:
        begun = time.monotonic()
        if await asyncio.to_thread(disk_usage, kept, limit) > limit:
            passed()
            return
        await asyncio.sleep(max(_PAUSE_SECONDS, (time.monotonic() - begun) * _SHARE))
