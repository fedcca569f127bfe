"""Reading an object of a bucket: one request for a run of reads in order, another one where a read is elsewhere.

All bytes are those of the object that was opened: a request names its ETag, so an object that was replaced
meanwhile is an error, never a mixture. A request that was broken off is made again from where it was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import obstore
from obstore.exceptions import GenericError

from runstream.objects.port import CHUNK_BYTES
from runstream.objects.s3.bucket import Bucket
from runstream.objects.s3.failures import translated

if TYPE_CHECKING:  # the client has these for type checkers alone
    from obstore import GetOptions, GetResult

_ATTEMPTS = 3
"""How often a request that breaks off is made again without a byte having come."""


class S3Reader:
    """An open object of a bucket."""

    def __init__(self, bucket: Bucket, path: str, opened: GetResult) -> None:
        self._bucket = bucket
        self._path = path
        self._key = opened.meta["path"]
        self._etag = opened.meta["e_tag"]
        self.size = opened.meta["size"]
        self._offset = 0
        """What the stream gives next, behind what is kept of it."""
        self._rest = b""
        self._stream: AsyncIterator[bytes] | None = _chunks(opened)

    async def read(self, offset: int, size: int) -> bytes:
        """The bytes from this offset, `size` of them or up to the end. Raises InternalError."""
        if offset >= self.size or size <= 0:
            return b""
        if offset != self._offset - len(self._rest):
            self._stream, self._rest, self._offset = None, b"", offset
        wanted = min(size, self.size - offset)
        parts = [self._rest]
        missing = wanted - len(self._rest)
        while missing > 0:
            chunk = await self._next_chunk()
            parts.append(chunk)
            missing -= len(chunk)
        found = b"".join(parts)
        self._rest = found[wanted:]
        return found[:wanted]

    async def close(self) -> None:
        """Give up the request that is open."""
        self._stream = None
        self._rest = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _next_chunk(self) -> bytes:
        with translated(self._bucket.location, self._path):
            for _ in range(_ATTEMPTS):
                try:
                    chunk = await self._from_stream()
                except GenericError:
                    chunk = b""
                if chunk:
                    self._offset += len(chunk)
                    return chunk
                self._stream = None
            return await self._from_stream() or self._ended()

    async def _from_stream(self) -> bytes:
        async with self._bucket.requests:
            if self._stream is None:
                options: GetOptions = {"range": {"offset": self._offset}, "if_match": self._etag}
                self._stream = _chunks(await obstore.get_async(self._bucket.store, self._key, options=options))
            return await anext(self._stream, b"")

    def _ended(self) -> bytes:
        raise GenericError(f"the answer ended at byte {self._offset} of {self.size}, {_ATTEMPTS + 1} times")


def _chunks(opened: GetResult) -> AsyncIterator[bytes]:
    return aiter(opened.stream(CHUNK_BYTES))
