"""Objects in a bucket, by their own paths behind the location's prefix, in plain key order.

Empty path elements collapse. Deleting a missing object succeeds. What is written is durable when it is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import obstore

from runstream.objects.port import ByteSource, Object
from runstream.objects.s3.bucket import Bucket
from runstream.objects.s3.failures import translated
from runstream.objects.s3.listing import described, found
from runstream.objects.s3.reading import S3Reader
from runstream.objects.s3.uploading import upload
from runstream.objects.sources import BytesSource, FileSource

_WRITES = 8
"""Objects of one `write_all` at once."""


class S3Objects:
    """The object storage in a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def stat(self, path: str) -> Object:
        """What is known of an object. Raises NotExistError."""
        key = self._bucket.key(path)
        async with self._bucket.requests:
            with translated(self._bucket.location, path):
                return described(self._bucket, await obstore.head_async(self._bucket.store, key))

    async def read(self, path: str) -> S3Reader:
        """Open an object. Raises NotExistError."""
        key = self._bucket.key(path)
        async with self._bucket.requests:
            with translated(self._bucket.location, path):
                return S3Reader(self._bucket, path, await obstore.get_async(self._bucket.store, key))

    async def write(self, path: str, source: ByteSource, *, size: int = -1, persist: bool = False) -> None:
        """Store an object; see the port. It is durable with and without `persist`."""
        del persist
        await upload(self._bucket, path, source, size)

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        """Store several objects, side by side."""
        for path in contents:
            self._bucket.key(path)
        rest = iter(contents.items())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_WRITES, len(contents))):
                    group.create_task(self._store_each(rest))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def delete(self, path: str) -> None:
        """Delete an object; one that is missing is deleted already."""
        key = self._bucket.key(path)
        async with self._bucket.requests:
            with translated(self._bucket.location, path):
                await obstore.delete_async(self._bucket.store, key)

    def list(self, prefix: str = "", *, start_after: str = "", recursive: bool = True) -> AsyncIterator[Object]:
        """The objects whose path begins with `prefix`; see the port."""
        return found(self._bucket, prefix.lstrip("/"), start_after.lstrip("/"), recursive)

    async def _store_each(self, rest: Iterator[tuple[str, bytes | Path]]) -> None:
        for path, content in rest:
            if isinstance(content, bytes):
                await upload(self._bucket, path, BytesSource(content), len(content))
            else:
                async with FileSource(content) as source:
                    await upload(self._bucket, path, source, -1)
