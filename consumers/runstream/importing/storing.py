"""The objects of a snapshot in the object storage: those that are not there yet. What is there is never replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runstream.errors import NotExistError
from runstream.objects.port import ObjectStorage
from runstream.snapshots.objects import SnapshotObject, object_chunks, objects
from runstream.snapshots.reading import Snapshot


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of the objects."""

    added: int
    kept: int
    """How many were there already."""


async def store_objects(snapshot: Snapshot, storage: ObjectStorage, tell: Callable[[int], None]) -> Stored:
    """Store what is missing; `tell` is told after each object. Raises SnapshotError, InternalError."""
    added = kept = 0
    for found in objects(snapshot):
        if await _is_there(storage, found):
            kept += 1
        else:
            await storage.write(found.path, _Content(snapshot, found), persist=True)
            added += 1
        tell(1)
    return Stored(added, kept)


async def _is_there(storage: ObjectStorage, found: SnapshotObject) -> bool:
    try:
        await storage.stat(found.path)
    except NotExistError:  # which is the usual case: it is added
        return False
    return True


class _Content:
    """The bytes of one object; that they are right is known before the end of them is given."""

    def __init__(self, snapshot: Snapshot, found: SnapshotObject) -> None:
        self._chunks: Iterator[bytes] = object_chunks(snapshot, found)
        self._rest = b""

    async def read(self, size: int) -> bytes:
        """The next bytes. Raises SnapshotError, and then nothing is stored."""
        if not self._rest:
            self._rest = await asyncio.to_thread(next, self._chunks, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece
