"""Writes the same objects again and again until it is killed, and says a line before each piece of one.

python -m tests.objects.writer BACKEND FOLDER|S3-URL PIECES
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from itertools import count
from pathlib import Path

from runstream.objects import ObjectStorage, PosixObjects
from runstream.objects.port import CHUNK_BYTES
from runstream.objects.posixflat import PosixFlatObjects
from runstream.objects.s3_location import parse_location
from tests.objects.backends import open_at

OBJECTS = 3


class Sealed:
    """Pieces of bytes, and their hash behind them."""

    def __init__(self, version: int, pieces: int) -> None:
        self._pieces = [bytes([version % 256]) * CHUNK_BYTES] * pieces
        self._hash = hashlib.sha256()
        self._sealed = False

    async def read(self, size: int) -> bytes:
        print("piece", flush=True)  # noqa: T201 - that is what it is for
        if self._pieces:
            assert size >= CHUNK_BYTES
            self._hash.update(self._pieces[-1])
            return self._pieces.pop()
        if self._sealed:
            return b""
        self._sealed = True
        return self._hash.digest()


def is_whole(content: bytes) -> bool:
    """Whether nothing of a sealed object is missing."""
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


async def write_for_ever(storage: ObjectStorage, pieces: int) -> None:
    for version in count():
        await storage.write(f"folder/{version % OBJECTS}", Sealed(version, pieces), persist=version % 2 == 0)


async def main(backend: str, where: str, pieces: int) -> None:
    if backend == "s3":
        await write_for_ever(await open_at(parse_location(where)), pieces)
    await write_for_ever((PosixObjects if backend == "posix" else PosixFlatObjects)(Path(where)), pieces)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
