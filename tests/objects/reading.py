"""What tests read of a storage."""

from __future__ import annotations

from runstream.objects import ObjectStorage
from runstream.objects.port import chunks


async def content(storage: ObjectStorage, path: str, offset: int = 0) -> bytes:
    """An object's bytes from an offset."""
    async with await storage.read(path) as stored:
        return b"".join([chunk async for chunk in chunks(stored, offset)])


async def paths(
    storage: ObjectStorage, prefix: str = "", *, start_after: str = "", recursive: bool = True
) -> list[str]:
    """The paths of a list."""
    return [found.path async for found in storage.list(prefix, start_after=start_after, recursive=recursive)]
