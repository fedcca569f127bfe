"""Where the bytes of a new object come from: memory or a local file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self


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
