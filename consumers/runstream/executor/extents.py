"""Content of files as extents of data; everything between them is a hole, which reads as zeros and takes no space.

A file of a terabyte may hold a few bytes. It is copied and compared in the time and space that its data takes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, TypeAlias

MAX_EXTENTS = 1 << 18
"""Maximum number of extents of one file; beyond it, the smallest holes count as data."""
_CHUNK_BYTES = 256 << 10


class Extent(NamedTuple):
    """A range of a file that holds data, in bytes."""

    begin: int
    end: int


Chunks: TypeAlias = Iterable[tuple[int, bytes]]
"""The data of a file in ascending order, each with its offset."""


def extents(file: int, begin: int, end: int) -> Iterator[Extent]:
    """Yield the extents of an open file within a range. A file system without holes gives one."""
    while begin < end:
        try:
            begin = os.lseek(file, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no more data
                return
            raise
        if begin >= end:
            return
        stop = min(os.lseek(file, begin, os.SEEK_HOLE), end)
        if stop <= begin:  # it was cut short meanwhile
            return
        yield Extent(begin, stop)
        begin = stop


def bounded(found: Iterable[Extent], limit: int = MAX_EXTENTS) -> list[Extent]:
    """Return at most `limit` extents that cover those found: the smallest holes between them become data."""
    kept: list[Extent] = []
    smallest = 1
    for extent in found:
        _append(kept, extent, smallest)
        while len(kept) > limit:
            smallest *= 2
            wider: list[Extent] = []
            for each in kept:
                _append(wider, each, smallest)
            kept = wider
    return kept


def _append(kept: list[Extent], extent: Extent, smallest: int) -> None:
    """Append an extent, or let the last one grow over a hole that is too small."""
    if kept and extent.begin - kept[-1].end < smallest:
        kept[-1] = Extent(kept[-1].begin, extent.end)
    else:
        kept.append(extent)


def are_ordered(found: Sequence[Extent], size: int) -> bool:
    """Return whether extents from elsewhere are ascending, disjoint and within a file of this size."""
    at = 0
    for begin, end in found:
        if not at <= begin <= end <= size:
            return False
        at = end
    return True


def chunks_of(file: BinaryIO) -> Chunks:
    """Yield the data of an open file."""
    for extent in extents(file.fileno(), 0, os.fstat(file.fileno()).st_size):
        for at in range(extent.begin, extent.end, _CHUNK_BYTES):
            yield at, os.pread(file.fileno(), min(_CHUNK_BYTES, extent.end - at), at)


def write(chunks: Chunks, size: int, file: BinaryIO) -> None:
    """Write a new file: its data, and holes."""
    for at, chunk in chunks:
        file.seek(at)
        file.write(chunk)
    file.truncate(size)  # flushes first


def are_equal(chunks: Chunks, size: int, file: BinaryIO) -> bool:
    """Return whether an open file has this content."""
    if os.fstat(file.fileno()).st_size != size:
        return False
    done = 0
    for at, chunk in chunks:
        if not _reads_as_zeros(file.fileno(), done, at) or os.pread(file.fileno(), len(chunk), at) != chunk:
            return False
        done = at + len(chunk)
    return _reads_as_zeros(file.fileno(), done, size)


def _reads_as_zeros(file: int, begin: int, end: int) -> bool:
    return not any(
        os.pread(file, min(_CHUNK_BYTES, extent.end - at), at).strip(b"\0")
        for extent in extents(file, begin, end)
        for at in range(extent.begin, extent.end, _CHUNK_BYTES)
    )
