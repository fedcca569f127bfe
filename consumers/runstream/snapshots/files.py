"""Where an export goes on the local disk: `<file>.part` until it is whole and durable, then `<file>`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from runstream.errors import BadRequestError, ConflictError, InternalError, NotExistError
from runstream.snapshots.resuming import resume
from runstream.snapshots.writing import Resumed


class SnapshotFile:
    """A file that is being exported to. A context manager; without `finish` the part stays, to be resumed."""

    def __init__(self, path: Path, *, resuming: bool) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self._resuming = resuming
        self.resumed: Resumed | None = None
        """What is there already."""
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self.path.exists():
            raise ConflictError(
                f"{self.path} is there already", code="snapshotExists", hint="choose another name, or remove it"
            )
        self._file = self._open()
        try:
            if self._resuming:
                self.resumed = resume(self._file)
        except BaseException:
            self._file.close()
            self._file = None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError) if error is not None else self._written():
            self._file.close()  # It flushes, and a full disk refuses that once more.
        if error is not None and self.part.stat().st_size == 0:
            self.part.unlink()  # nothing was exported: nothing could be resumed

    @property
    def begun(self) -> bool:
        """Whether there is something that can be resumed."""
        return self._file is not None and self.part.exists()

    def _open(self) -> BinaryIO:
        try:
            flags = os.O_RDWR | os.O_CLOEXEC | (0 if self._resuming else os.O_CREAT | os.O_EXCL)
            file = os.fdopen(os.open(self.part, flags, 0o600), "r+b")
            os.fchmod(file.fileno(), 0o600)  # an earlier version let others read what it began
            return file
        except FileNotFoundError as error:
            if not self._resuming:
                raise _not_writable(self.path, error) from error
            raise NotExistError(
                f"there is no {self.part} to resume", code="nothingToResume", hint="export without --resume"
            ) from error
        except FileExistsError as error:
            raise ConflictError(
                f"{self.part} is there: an export to {self.path} was interrupted, or is going on",
                code="snapshotExists",
                hint="go on with it with --resume, or remove it",
            ) from error
        except OSError as error:
            raise _not_writable(self.path, error) from error

    async def send(self, content: bytes) -> None:
        """Write the next bytes. Raises InternalError when they cannot be written: what there is can be resumed."""
        with self._written():
            await asyncio.to_thread(self._opened().write, content)

    def flush(self) -> None:
        """Let others see in the part what was written. Raises as `send` does."""
        with self._written():
            self._opened().flush()

    async def finish(self) -> None:
        """It is whole: make it durable, and give it its name. Raises as `send` does."""
        with self._written():
            await asyncio.to_thread(self._finish)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Turn what the disk refuses into an error that says how to go on."""
        try:
            yield
        except OSError as error:
            raise InternalError(
                f"{self.part} cannot be written: {error.strerror}",
                code="snapshotNotWritten",
                hint="make room, and go on with --resume",
            ) from error

    def _finish(self) -> None:
        file = self._opened()
        file.flush()
        os.fsync(file.fileno())
        self.part.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError(f"{self.part} is not open")
        return self._file


def _not_writable(path: Path, error: OSError) -> BadRequestError:
    no_folder = isinstance(error, FileNotFoundError)
    why = f"there is no folder {path.parent}" if no_folder else error.strerror
    return BadRequestError(f"{path} cannot be written: {why}", code="snapshotNotWritten")
