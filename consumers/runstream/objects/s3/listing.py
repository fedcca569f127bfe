"""Listing a bucket: in plain key order, a page at a time, from where the list begins.

The client knows prefixes of whole elements only; the rest of a text prefix is found by where the list starts and
ends. What it cannot ask for it reads and leaves out.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC
from typing import TYPE_CHECKING

import obstore

from runstream.errors import NotExistError
from runstream.objects.port import Object
from runstream.objects.s3.bucket import Bucket
from runstream.objects.s3.failures import translated

if TYPE_CHECKING:  # the client has it for type checkers alone
    from obstore import ObjectMeta

_PAGE = 1000
_CONTROL = re.compile("[\x00-\x1f\x7f]")


async def found(bucket: Bucket, prefix: str, start_after: str, recursive: bool) -> AsyncIterator[Object]:
    """The objects whose path begins with the text `prefix`, behind `start_after`."""
    folder = prefix[: prefix.rfind("/") + 1]
    if not _possible(folder):
        return
    if start_after < prefix and not prefix.endswith("/"):
        async for exact in _exactly(bucket, prefix):
            yield exact
    start = max(start_after, prefix)
    async with contextlib.aclosing(_pages(bucket, folder, start, recursive=recursive)) as pages:
        async for page in pages:
            for meta in page:
                path = bucket.path(meta["path"])
                if path > start and path.startswith(prefix):
                    yield described(bucket, meta)
                elif path > start:  # all others are behind the prefix too
                    return


def described(bucket: Bucket, meta: ObjectMeta) -> Object:
    """The object that the client describes."""
    return Object(bucket.path(meta["path"]), meta["size"], meta["last_modified"].astimezone(UTC))


async def _exactly(bucket: Bucket, path: str) -> AsyncIterator[Object]:
    """The object with this path, if there is one: a list behind a path leaves out the path itself."""
    if not _possible(path):
        return
    try:
        async with bucket.requests:
            with translated(bucket.location, path):
                meta = await obstore.head_async(bucket.store, bucket.key(path))
    except NotExistError:
        return
    yield described(bucket, meta)


async def _pages(
    bucket: Bucket, folder: str, start: str, *, recursive: bool
) -> AsyncGenerator[Sequence[ObjectMeta], None]:
    key = bucket.location.prefix + folder
    if not recursive:
        async with bucket.requests:
            with translated(bucket.location, folder):
                listed = await obstore.list_with_delimiter_async(bucket.store, key.rstrip("/") or None)
        yield sorted(listed["objects"], key=lambda meta: meta["path"])
        return
    offset = bucket.location.prefix + start if start and _possible(start) else None
    with translated(bucket.location, folder):
        pages = obstore.list(bucket.store, key.rstrip("/") or None, offset=offset, chunk_size=_PAGE)
    while True:
        async with bucket.requests:
            with translated(bucket.location, folder):
                page = await anext(pages, None)
        if page is None:
            return
        yield page


def _possible(path: str) -> bool:
    """Whether objects can have this path, or be below it."""
    elements = path.removesuffix("/").split("/")
    return not path or not (_CONTROL.search(path) or any(element in ("", ".", "..") for element in elements))
