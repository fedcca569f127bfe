"""The executor's own directory: its id, lock and read positions, a folder for each task, and checks of the disk
space."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import orjson
import structlog

from runstream.atomic_files import replace_file
from runstream.errors import InternalError
from runstream.executor.beneath import FOLDER, closing, open_beneath, remove_tree
from runstream.ids import new_id, require_token
from runstream.open_files import OpenFilesError

log = structlog.get_logger()


class ExecutorPlace:
    """The directory of one executor. Its files are small, so they are read and written in place."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "executor"
        """The directory of the executor's own files."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.disk_reserve = DiskReserve(self.folder / "spare")
        self.tasks = self.folder / "tasks"
        """The directory with one folder for each task."""

    def note_sandbox(self, state: str) -> None:
        """Note how tasks are kept apart here, for `doctor`, whose own settings may differ."""
        with contextlib.suppress(OSError):  # the disk is full
            (self.folder / "sandbox").write_text(state)

    def noted_sandbox(self) -> str:
        """Return what the executor that runs here noted; empty for nothing."""
        try:
            return (self.folder / "sandbox").read_text()
        except OSError:
            return ""

    def identity(self, wanted: str = "") -> str:
        """Return the executor's id: `wanted`, or else the one generated at the first start."""
        if wanted:
            return require_token(wanted, "executor id")
        file = self.folder / "id"
        if not file.exists():
            replace_file(file, new_id().encode(), mode=0o666)
        return require_token(file.read_text().strip(), "executor id")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this directory. Raises InternalError when another executor holds it."""
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InternalError(
                    f"another executor uses {self.folder}",
                    code="executorRunning",
                    hint="give each executor of this machine a --data-dir of its own",
                ) from error
            yield

    def positions(self, epoch: int, origins: Mapping[int, str]) -> dict[int, int]:
        """Return the sequence of each partition after which to read; a partition without one is read from its
        beginning.

        A position is void if the partition was created anew since (its origin differs): the new one may lack commits
        that were read, and has others that were not.
        """
        file = self.folder / "positions.json"
        try:
            stored = orjson.loads(file.read_bytes())
            if stored["epoch"] == epoch:
                made = stored.get("origins", {})
                after = {int(partition): int(sequence) for partition, sequence in stored["after"].items()}
                return {at: sequence for at, sequence in after.items() if made.get(str(at)) == origins.get(at)}
        except FileNotFoundError:
            pass  # the first start
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning(f"{file} cannot be read: {error}", action="positions_unreadable", path=str(file))
        return {}

    def keep_positions(self, epoch: int, after: Mapping[int, int], origins: Mapping[int, str]) -> None:
        """Store the read position of each partition (see `Log.origin`). Losing it costs only time."""
        content = {
            "epoch": epoch,
            "after": {str(partition): sequence for partition, sequence in after.items()},
            "origins": {str(partition): origin for partition, origin in origins.items()},
        }
        file = self.folder / "positions.json"
        try:
            replace_file(file, orjson.dumps(content), mode=0o666)
        except OSError as error:  # the disk is full, or no file descriptor is left
            log.warning(f"{file} cannot be written: {error}", action="positions_not_kept", path=str(file))


class TaskFolder:
    """The folder of one task."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        """The HOME of a host task."""
        self.tmp = root / "tmp"
        """The task's TMPDIR; /tmp in a sandbox."""
        self.processes = root / "processes"
        """The record of started sessions."""
        self.aside = root.parent.with_name("set-aside")
        """Destination of the folder when it cannot be removed."""

    def log(self, step: int | None) -> Path:
        """Return the path of a step's local log; None is the setup step, -N is service N."""
        name = "setup" if step is None else f"service{-step}" if step < 0 else str(step)
        return self.root / f"{name}.log"

    def log_index(self, step: int | None) -> Path:
        """Return the path of the index of a complete local log."""
        return self.log(step).with_suffix(".index")

    def archive(self, step: int) -> Path:
        """Return the path of the local archive of a workspace step."""
        return self.root / f"{step}.tar"

    def make(self) -> None:
        """Create the folder, empty; an existing one is removed first."""
        try:
            self.root.mkdir(mode=0o700)
        except FileExistsError:
            self.remove()
            self.root.mkdir(mode=0o700)

    def make_home(self) -> None:
        """Create the folders of a host task's own files."""
        for folder in (self.home, self.tmp):
            folder.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the folder with its contents; move a folder that cannot be removed aside, and log a warning.

        Raises OpenFilesError if this process has no descriptor left to do so.
        """
        problems = remove_tree(self.root)
        if problems.out_of_files:
            raise OpenFilesError
        if problems.count:
            place = self._set_aside()
            log.warning(
                f"cannot remove files of a task, which stay in {place}: {problems}",
                action="task_folder_left",
                path=str(place),
                count=problems.count,
            )

    def _set_aside(self) -> Path:
        """Move the folder aside, so that its name is free for a new one; return where it is now."""
        try:
            self.aside.mkdir(mode=0o700, exist_ok=True)
            place = self.aside / f"{self.root.name}.{secrets.token_hex(4)}"
            self.root.rename(place)
        except OSError:  # it cannot be moved either: the warning names its place
            return self.root
        return place


NEEDED_BYTES = 64 << 20
"""Free bytes needed to start a task; on a disk smaller than ten times this, a tenth of the disk."""
_RESERVE_BYTES = 1 << 20
_RESERVE_SHARE = 64
"""Maximum reserve on a small disk: this fraction of it."""
_RELEASED_BYTES = 16 << 10
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def disk_shortage(folder: Path) -> str:
    """Return why the disk has no space for a task; empty if it has. Blocks. Raises OSError."""
    usage = shutil.disk_usage(folder)
    needed = min(NEEDED_BYTES, usage.total // 10)
    if usage.free >= needed:
        return ""
    return f"disk full: {usage.free >> 10} KiB left at {folder}, a task needs {needed >> 10}"


def is_full(error: BaseException) -> bool:
    """Return whether a write failed because the disk, or the user's quota, is full."""
    return isinstance(error, OSError) and error.errno in _FULL


class DiskReserve:
    """Disk blocks held by a file, released so that a log on a full disk still gets its last line.

    One file serves all tasks: reserving blocks for each log would cost every step a transaction of the file system.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def refill(self) -> None:
        """Reserve the blocks again; reserve none if the disk is full. Blocks. Raises OSError."""
        total = min(_RESERVE_BYTES, shutil.disk_usage(self._path.parent).total // _RESERVE_SHARE)
        with self._path.open("ab") as file:
            if file.tell() < total:
                try:
                    os.posix_fallocate(file.fileno(), 0, total)
                except OSError as error:
                    if not is_full(error):
                        raise

    def release(self) -> bool:
        """Release some of the blocks; return False when none is left."""
        try:
            with self._path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                file.truncate(max(size - _RELEASED_BYTES, 0))
                return size > 0
        except OSError:  # the disk was already full when the first tasks started
            return False


_READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
_BLOCK_BYTES = 512
_WALK_SECONDS = 10.0
"""Maximum duration of one walk, in seconds; files that it does not reach are not counted."""
_FIRST_SECONDS = 0.25
"""Delay of the first walk, in seconds: a short task needs neither thread nor walk."""
_PAUSE_SECONDS = 3.0
_SHARE = 20
"""A walk takes at most this fraction of the time."""


def disk_usage(folders: Iterable[Path], enough: int) -> int:
    """Return the bytes that files below these folders occupy; stop counting above `enough`. Blocks."""
    until = time.monotonic() + _WALK_SECONDS
    total, linked = 0, set[tuple[int, int]]()
    for folder in folders:
        try:
            opened = os.open(folder, FOLDER)
        except FileNotFoundError:  # of a task with containers, whose files are there
            continue
        with closing(opened) as top:
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
    """Return the entries of a folder; none if it is gone, on another file system, or unreadable."""
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


_LONG = struct.calcsize("l")
_GET_FLAGS = 2 << 30 | _LONG << 16 | ord("f") << 8 | 1
_SET_FLAGS = 1 << 30 | _LONG << 16 | ord("f") << 8 | 2
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of linux/fs.h, whose type is long although they take an int."""
_INT = struct.Struct("i")
_TOP_OF_HIERARCHIES = 0x00020000
"""FS_TOPDIR_FL."""


def spread(folder: Path) -> bool:
    """Set the hint that spreads new directories over the disk; return False if the file system has none.

    Raises OSError for a missing folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _SET_FLAGS, _INT.pack(_flags(descriptor) | _TOP_OF_HIERARCHIES))
        return bool(_flags(descriptor) & _TOP_OF_HIERARCHIES)
    except OSError:  # no such hint, or the folder belongs to another user
        return False
    finally:
        os.close(descriptor)


def _flags(descriptor: int) -> int:
    flags: int = _INT.unpack(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(_INT.size)))[0]
    return flags
