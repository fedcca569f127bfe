"""The files of a task on this machine, reached by descriptors of its file system (`runstream.executor.task_root`)."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from typing import BinaryIO

from runstream.errors import BadRequestError
from runstream.events.run_config import SaveContent
from runstream.executor.beneath import closing, printable
from runstream.executor.steps.archives import Packed, Unpacking, pack
from runstream.executor.task_root import TaskRoot


class HostFiles:
    """The files of a task on this machine. All work runs in threads, as the task's user."""

    def __init__(self, root: TaskRoot) -> None:
        self.home = root.home
        self._root = root

    def path(self, text: str, folder: str = "~") -> str:
        """Return the absolute path of `text`."""
        return self._root.path(text, folder)

    async def make_folder(self, path: str, mode: int = 0o755) -> None:
        """Create a directory and its parents if they are missing."""
        os.close(await self._root.run(self._root.make_folder, path, mode))

    async def write(self, path: str, content: bytes, mode: int = 0o600) -> None:
        """Write a whole file."""
        await self._root.run(self._root.write, path, content, mode)

    async def read(self, path: str, limit: int) -> bytes:
        """Return the content of a regular file."""
        return await self._root.run(self._read, path, limit)

    def _read(self, path: str, limit: int) -> bytes:
        try:
            with closing(self._root.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as descriptor:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise BadRequestError(f"{printable(path)!r} is not a file", code="fileNotReadable")
                with os.fdopen(os.dup(descriptor), "rb") as file:
                    content = file.read(limit + 1)
        except OSError as error:
            raise BadRequestError(
                f"{printable(path)!r} cannot be read: {error.strerror}", code="fileNotReadable"
            ) from error
        if len(content) > limit:
            raise BadRequestError(f"{printable(path)!r} has more than {limit} bytes", code="fileTooLarge")
        return content

    async def pack(
        self, target: BinaryIO, contents: Sequence[SaveContent], folder: str, stopped: threading.Event
    ) -> Packed:
        """Write a tar of the files that `contents` select."""
        return await self._root.run(pack, target, contents, self._root, folder, stopped)

    def unpacking(self, destination: str, stopped: threading.Event, *, replace: bool = False) -> HostUnpacking:
        """Return the means to restore archives into a folder."""
        return HostUnpacking(self._root, destination, stopped, replace=replace)


class HostUnpacking:
    """The restoring of archives by one step into one folder."""

    def __init__(self, root: TaskRoot, destination: str, stopped: threading.Event, *, replace: bool) -> None:
        self._root = root
        self._unpacking = Unpacking(root, destination, stopped, replace=replace)

    async def unpack(self, archive: BinaryIO, task: str) -> int:
        """Unpack the archive that `task` saved and return the number of entries."""
        return await self._root.run(self._unpacking.unpack, archive, task)
