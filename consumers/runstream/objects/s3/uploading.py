"""Writing an object into a bucket: a small one in one request, a large one, or one of unknown size, in parts.

The object appears when the last request is answered, whole. Whatever ends an upload before that, its parts are
deleted; those of a process that was killed are not, and a lifecycle rule of the bucket should delete them.
Memory is a few parts, whatever the size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import obstore

from runstream.objects.port import CHUNK_BYTES, ByteSource
from runstream.objects.s3.bucket import Bucket
from runstream.objects.s3.failures import translated

PART_BYTES = 8 << 20
_MOST_PARTS = 10_000
_PARTS_AT_ONCE = 2
_ABORT_SECONDS = 10.0
T = TypeVar("T")


async def upload(bucket: Bucket, path: str, source: ByteSource, size: int) -> None:
    """Store an object; of a size that is not -1 at most so many bytes are taken. Raises what the source raises."""
    key = bucket.key(path)
    parts = _Parts(source, size)
    first = await parts.next()
    if len(first) < parts.size:
        async with bucket.requests:
            with translated(bucket.location, path):
                await obstore.put_async(bucket.store, key, first, use_multipart=False)
    else:
        async with bucket.uploads:
            await _in_parts(bucket, path, key, first, parts)


class _Parts:
    """A source, cut into parts of one size; the last one is smaller, or empty."""

    def __init__(self, source: ByteSource, size: int) -> None:
        self._source = source
        self._left = size if size >= 0 else None
        self.size = max(PART_BYTES, -(-size // (_MOST_PARTS - 1)))
        self.error: Exception | None = None
        """What the source has raised."""

    async def next(self) -> bytes:
        """The next part."""
        chunks: list[bytes] = []
        missing = self.size if self._left is None else min(self.size, self._left)
        try:
            while missing > 0 and (chunk := await self._source.read(min(missing, CHUNK_BYTES))):
                chunks.append(chunk)
                missing -= len(chunk)
        except Exception as error:
            self.error = error
            raise
        part = b"".join(chunks)
        if self._left is not None:
            self._left -= len(part)
        return part


async def _in_parts(bucket: Bucket, path: str, key: str, first: bytes, parts: _Parts) -> None:
    stopped = asyncio.Event()
    sending = asyncio.ensure_future(
        obstore.put_async(
            bucket.store,
            key,
            _until(stopped, first, parts),
            use_multipart=True,
            chunk_size=parts.size,
            max_concurrency=_PARTS_AT_ONCE,
        )
    )
    try:
        with translated(bucket.location, path):
            await asyncio.shield(sending)
    except asyncio.CancelledError:
        # Cancelling the request itself would leave the parts that were sent; a source that fails has them deleted.
        stopped.set()
        await asyncio.wait({sending}, timeout=_ABORT_SECONDS)
        if sending.done():
            sending.exception()  # looked at, because nobody else will
        else:
            sending.cancel()
        raise
    except Exception:
        if parts.error is not None:  # the client may say it in other words
            raise parts.error from parts.error.__cause__
        raise


async def _until(stopped: asyncio.Event, first: bytes, parts: _Parts) -> AsyncIterator[bytes]:
    """All parts; an error as soon as it is stopped."""
    yield first
    while part := await _unless(stopped, parts.next()):
        yield part


async def _unless(stopped: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.is_set():
            raise InterruptedError("nobody waits for this upload any more")
        return working.result()
    finally:
        working.cancel()
        stopping.cancel()
