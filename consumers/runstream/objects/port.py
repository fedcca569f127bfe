"""The contract of every object storage (rules storage-1 to storage-3), whatever the backend.

An object's path is text with `/` between its elements. An object is visible only once it is complete, and a missing
object is always the same error. Sizes are bytes, times are UTC.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from runstream.errors import BadRequestError, NotExistError

CHUNK_BYTES = 256 << 10
_MAX_ELEMENT_BYTES = 255
"""Length of one path element: what file systems allow."""


@dataclass(frozen=True, slots=True)
class Object:
    """The description of a stored object."""

    path: str
    size: int
    modified: datetime


class ByteSource(Protocol):
    """The content of a new object."""

    async def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; empty at the end."""


class ObjectReader(Protocol):
    """An open object: readable from any offset, one read at a time.

    Its bytes are always those of the opened object. After that object is deleted or replaced, a disk still has them;
    a bucket yields what it has begun to send, then an InternalError or NotExistError.
    """

    @property
    def size(self) -> int:
        """Size in bytes."""

    async def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from this offset, or those up to the end."""

    async def close(self) -> None:
        """Release the object; a second close does nothing."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class ObjectStorage(Protocol):
    """A store of objects."""

    async def stat(self, path: str) -> Object:
        """Describe an object. Raises NotExistError."""

    async def read(self, path: str) -> ObjectReader:
        """Open an object; the caller closes it. Raises NotExistError."""

    async def write(self, path: str, source: ByteSource, *, size: int = -1, persist: bool = False) -> None:
        """Store an object in place of any other; it becomes visible once complete.

        Take at most `size` bytes of the source and leave the rest unread; -1 takes all. With `persist`, the object is
        durable on return. Raises BadRequestError for an impossible path.
        """

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        """Store several objects (bytes, or local files); they are durable on return.

        Cheaper than one `write` each. Not atomic: after an error some may be stored. A local file may become the object
        itself, so the caller may remove it, but not change it.
        """

    async def create(self, path: str, content: Path) -> bool:
        """Store a local file durably as an object, unless there is one; return whether it was stored.

        Of several that try at the same time, one succeeds. The file may become the object itself, so the caller may
        remove it, but not change it.
        """
        ...

    async def delete(self, path: str) -> None:
        """Delete an object. A backend that knows that it is missing (a disk) raises NotExistError."""

    def list(self, prefix: str = "", *, start_after: str = "", recursive: bool = True) -> AsyncIterator[Object]:
        """Yield the objects whose path begins with the text `prefix`, after `start_after`, in the backend's order.

        A leading `/` of both is ignored. Unless `recursive`, skip paths with a `/` after the prefix. A posix storage
        raises BadRequestError for a `start_after` that does not begin with the prefix.
        """


class BytesSource:
    """Bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self._rest = memoryview(content)

    async def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`."""
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return bytes(chunk)


class FileSource:
    """A local file, read in a thread; an async context manager that opens and closes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    async def __aenter__(self) -> Self:
        self._file = await asyncio.to_thread(self._path.open, "rb")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    async def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`."""
        if self._file is None:
            raise ValueError(f"{self._path} is not open")
        return await asyncio.to_thread(self._file.read, size)


async def source_chunks(source: ByteSource, size: int) -> AsyncIterator[bytes]:
    """Yield the bytes of a source, at most `size`; all of them for -1."""
    while size and (chunk := await source.read(CHUNK_BYTES if size < 0 else min(size, CHUNK_BYTES))):
        size = size if size < 0 else size - len(chunk)
        yield chunk


async def chunks(reader: ObjectReader, offset: int = 0) -> AsyncIterator[bytes]:
    """Yield the bytes of an open object from an offset to its end; do not close it."""
    while chunk := await reader.read(offset, CHUNK_BYTES):
        offset += len(chunk)
        yield chunk


def elements(path: str) -> list[str]:
    """Split an object's path into its elements. Raises BadRequestError for an impossible path.

    Empty elements collapse (`a//b` is `a/b`), because neither a disk nor MinIO can tell the two apart.
    """
    found = [element for element in path.split("/") if element]
    if not found or ".." in found or "." in found or "\0" in path or not all(map(_short, found)):
        raise impossible(path)
    return found


def impossible(path: str) -> BadRequestError:
    """Return the error for a text that cannot be the path of an object."""
    return BadRequestError(
        f"{path[:200]!r} cannot be the path of an object",
        code="invalidObjectPath",
        hint="a path has no '.' or '..', no control characters, and no element of more than "
        f"{_MAX_ELEMENT_BYTES} bytes",
    )


def not_exist(path: str) -> NotExistError:
    """Return the error for a missing object."""
    return NotExistError(f"object {path!r} does not exist", code="objectDoesNotExist", details={"path": path})


def _short(element: str) -> bool:
    try:
        return len(element.encode("utf-8", "surrogateescape")) <= _MAX_ELEMENT_BYTES
    except UnicodeEncodeError:  # a lone surrogate is no text
        return False
