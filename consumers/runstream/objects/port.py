"""What every object storage promises (rules storage-1 to storage-3), whatever the backend.

An object's path is text with `/` between its elements. An object is visible only when it is complete, and a
missing one is always the same error. Sizes are bytes, times are UTC.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from runstream.errors import BadRequestError, NotExistError

CHUNK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Object:
    """What is known of a stored object without reading it."""

    path: str
    size: int
    modified: datetime


class ByteSource(Protocol):
    """Where the bytes of a new object come from."""

    async def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; empty at the end."""
        ...


class ObjectReader(Protocol):
    """An open object: it can be read from any offset, one read at a time.

    Its bytes are always those of the object that was opened. Once that is deleted or replaced, a disk still has
    them; a bucket gives what it has begun to send, and beyond that an InternalError or NotExistError.
    """

    @property
    def size(self) -> int:
        """How many bytes it has."""
        ...

    async def read(self, offset: int, size: int) -> bytes:
        """The bytes from this offset, `size` of them or up to the end."""
        ...

    async def close(self) -> None:
        """Release it; a second close does nothing."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class ObjectStorage(Protocol):
    """Where objects are."""

    async def stat(self, path: str) -> Object:
        """What is known of an object. Raises NotExistError."""
        ...

    async def read(self, path: str) -> ObjectReader:
        """Open an object; the caller closes it. Raises NotExistError."""
        ...

    async def write(self, path: str, source: ByteSource, *, size: int = -1, persist: bool = False) -> None:
        """Store an object in place of any other; visible only when it is complete.

        With a size, at most that many bytes are taken and the rest stays unread; with -1, all. With `persist`
        it is durable when this returns. Raises BadRequestError for a path that cannot be one.
        """
        ...

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        """Store several objects (their bytes, or local files), durable when this returns.

        Cheaper than one by one. Not atomic over the objects: an error may leave some of them stored. A local file is
        not changed any more by who gives it, only removed: it may become the object itself.
        """
        ...

    async def delete(self, path: str) -> None:
        """Delete an object. Where the backend knows that it is missing (on disk): NotExistError."""
        ...

    def list(self, prefix: str = "", *, start_after: str = "", recursive: bool = True) -> AsyncIterator[Object]:
        """The objects whose path begins with the text `prefix`, in the backend's order, behind `start_after`.

        A leading `/` of both is ignored. Not recursive: only those without `/` behind the prefix. A posix storage
        raises BadRequestError for a `start_after` that does not begin with the prefix.
        """
        ...


def not_exist(path: str) -> NotExistError:
    """The error for a missing object."""
    return NotExistError(f"object {path!r} does not exist", code="objectDoesNotExist", details={"path": path})


async def chunks(reader: ObjectReader, offset: int = 0) -> AsyncIterator[bytes]:
    """The bytes of an open object from an offset to its end; does not close it."""
    while chunk := await reader.read(offset, CHUNK_BYTES):
        offset += len(chunk)
        yield chunk


_LONGEST = 255
"""Bytes of one element: what file systems allow."""


def elements(path: str) -> list[str]:
    """The elements of an object's path. Raises BadRequestError for a path that cannot be one."""
    found = [element for element in path.split("/") if element]
    if not found or ".." in found or "." in found or "\0" in path or not all(map(_short, found)):
        raise impossible(path)
    return found


def impossible(path: str) -> BadRequestError:
    """The error for a text that cannot be the path of an object."""
    return BadRequestError(
        f"{path[:200]!r} cannot be the path of an object",
        code="invalidObjectPath",
        hint=f"a path has no '.' or '..', no control characters, and no element of more than {_LONGEST} bytes",
    )


def _short(element: str) -> bool:
    try:
        return len(element.encode("utf-8", "surrogateescape")) <= _LONGEST
    except UnicodeEncodeError:  # a lone surrogate is no text
        return False


class BytesSource:
    """Bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self._rest = memoryview(content)

    async def read(self, size: int) -> bytes:
        """The next bytes, at most `size`."""
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


class FileSource:
    """A local file, read in a thread; an async context manager that opens and closes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    async def __aenter__(self) -> Self:
        self._file = await asyncio.to_thread(self._path.open, "rb")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    async def read(self, size: int) -> bytes:
        """The next bytes, at most `size`."""
        if self._file is None:
            raise ValueError(f"{self._path} is not open")
        return await asyncio.to_thread(self._file.read, size)
