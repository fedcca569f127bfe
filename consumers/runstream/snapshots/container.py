"""The tar of a snapshot: written as a stream, read strictly.

It holds plain files with plain names. The reader refuses everything else that `tar` can write (folders, links, long
names, sparse files, other block sizes) and padding that is not zero. Names are never used as paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from runstream.counting import counted
from runstream.snapshots.errors import WHOLE, SnapshotError

BLOCK = 512
END = bytes(2 * BLOCK)
"""The two blocks of zeros that end a tar."""
MAX_NAME = 99
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_CHUNK = 1 << 20
_NOT_OURS = "it was not written by `runstream export`; another program's tar, also one packed again, is not a snapshot"


Send = Callable[[bytes], Awaitable[None]]
"""Sends the next bytes of the snapshot; returns when there is room for more."""


@dataclass(frozen=True, slots=True)
class TarEntry:
    """A file in the tar."""

    name: str
    offset: int
    """Offset of its first byte."""
    size: int

    @property
    def end(self) -> int:
        """Offset behind its last block."""
        return self.offset + self.size + len(padding(self.size))


def is_name(name: str) -> bool:
    """Return whether a file in a snapshot may have this name."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def header(name: str, size: int, modified: datetime) -> bytes:
    """Return the header block of a file. Raises ValueError for an invalid name."""
    if not is_name(name):
        raise ValueError(f"{name!r} cannot be the name of a file in a snapshot")
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(modified.timestamp()), 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """Return the zeros that follow a file's content."""
    return bytes(-size % BLOCK)


class SnapshotStream:
    """The tar on its way out, one file at a time."""

    def __init__(self, send: Send, created: datetime, sent: Callable[[int], None], folder: str = "") -> None:
        self._send, self._created, self._sent_bytes, self._folder = send, created, sent, folder
        self._lock = asyncio.Lock()

    def within(self, folder: str) -> SnapshotStream:
        """Return a stream into a folder of the same tar, to be used while this one is not."""
        return SnapshotStream(self._send, self._created, self._sent_bytes, folder)

    async def file(self, name: str, content: bytes) -> None:
        """Send a whole file."""
        async with self.open(name, len(content)) as send:
            await send(content)

    @contextlib.asynccontextmanager
    async def open(self, name: str, size: int) -> AsyncIterator[Send]:
        """Send a file whose content, of this size, the block sends in pieces; other files wait."""
        async with self._lock:
            await self._sent(header(self._folder + name, size, self._created))
            yield self._sent
            await self._sent(padding(size))

    async def close(self) -> None:
        """Send the end of the tar."""
        await self._sent(END)

    async def _sent(self, content: bytes) -> None:
        if content:
            await self._send(content)
            self._sent_bytes(len(content))


def entries(file: BinaryIO, size: int) -> Iterator[TarEntry]:
    """Yield the files of a tar of this size, in order. Raises SnapshotError for anything that an export does not write.

    Ends after the two blocks of zeros, which must be the last ones. Contents are skipped, not read.
    """
    at = 0
    last = WHOLE
    while True:
        block = _block(file, at, last)
        if not any(block):
            if _block(file, at + BLOCK, last) != block:
                raise SnapshotError(WHOLE, f"one block of zeros stands alone at byte {at}")
            if at + len(END) != size:
                raise SnapshotError(WHOLE, f"it goes on behind its end at byte {at + len(END)}")
            return
        entry = _entry(block, at)
        if entry.end > size:
            problem = f"it ends after {counted(size, 'byte')}, in the middle of {entry.name}"
            raise SnapshotError(WHOLE, problem, code="truncatedSnapshot", hint=CUT)
        file.seek(entry.offset + entry.size)
        if any(file.read(len(padding(entry.size)))):
            raise SnapshotError(entry.name, "it has data after its end")
        last = entry.name
        yield entry
        at = entry.end


CUT = "the transfer was cut off: `runstream export --resume` goes on with it, or export again"


def _block(file: BinaryIO, at: int, last: str) -> bytes:
    file.seek(at)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        if at == 0:
            problem = "it is empty" if not block else "it is too short to be a snapshot"
            raise SnapshotError(WHOLE, problem, code="notASnapshot", hint=_NOT_OURS)
        problem = f"it ends after {counted(at + len(block), 'byte')}, behind {last}, without its end"
        raise SnapshotError(WHOLE, problem, code="truncatedSnapshot", hint=CUT)
    return block


def _entry(block: bytes, at: int) -> TarEntry:
    # The checksum is the sum of the bytes, with spaces in place of the sum itself.
    text = block[148:156]
    if block[257:263] != b"ustar " or text != b"%06o\0 " % (sum(block) - sum(text) + 8 * 32):
        if at == 0:
            raise SnapshotError(WHOLE, "it is not a snapshot", code="notASnapshot", hint=_NOT_OURS)
        raise SnapshotError(WHOLE, f"the header at byte {at} was changed")
    name = block[:100].rstrip(b"\0").decode("latin-1")
    if not is_name(name):
        raise SnapshotError(WHOLE, f"{name[:100]!r} at byte {at} is no name of a snapshot", hint=_NOT_OURS)
    if block[156:157] != b"0" or any(block[157:257]) or any(block[345:]):
        raise SnapshotError(name, "it is not a plain file", hint=_NOT_OURS)
    return TarEntry(name, at + BLOCK, _size(block, name))


def _size(block: bytes, name: str) -> int:
    field = block[124:136]
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if not re.fullmatch(rb"[0-7]{11}\0", field):
        raise SnapshotError(name, "its size cannot be read")
    return int(field[:11], 8)


def content(file: BinaryIO, entry: TarEntry, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes. Raises SnapshotError."""
    if entry.size > limit:
        raise SnapshotError(entry.name, f"it has {counted(entry.size, 'byte')}; more than {limit} are not read")
    file.seek(entry.offset)
    found = file.read(entry.size)
    if len(found) != entry.size:
        raise SnapshotError(entry.name, "the file became shorter while it was read", code="truncatedSnapshot", hint=CUT)
    return found


def chunks(file: BinaryIO, entry: TarEntry) -> Iterator[bytes]:
    """Yield a file's content, one MiB at a time. Raises SnapshotError when the tar became shorter in the meantime."""
    at, end = entry.offset, entry.offset + entry.size
    while at < end:
        file.seek(at)
        chunk = file.read(min(_CHUNK, end - at))
        if not chunk:
            raise SnapshotError(
                entry.name, "the file became shorter while it was read", code="truncatedSnapshot", hint=CUT
            )
        at += len(chunk)
        yield chunk
