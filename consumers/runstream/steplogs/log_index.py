"""The index of a stored log: offsets of its lines, and the times of its bytes (docs/formats/log-index.md).

The executor makes it while the step writes, and stores it beside the log. It is bounded: a log of many lines, or of
many hours, has entries at larger intervals.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise

from runstream.codec import zstd
from runstream.log_lines import after_line
from runstream.log_times import MAX_TIME

LINES = 1000
"""Lines from one entry to the next."""
FLUSH_MS = 100
"""Time over which bytes have one time, in milliseconds."""
MAX_ENTRIES = 1 << 16
"""Of each kind; beyond that, every second one is dropped, and the interval is doubled."""
MAGIC = b"RSLOGIX\x01"
_HEADER = struct.Struct("<5Q")
_PLAIN_BYTES = _HEADER.size + 3 * 8 * MAX_ENTRIES
MAX_INDEX_BYTES = 2 * _PLAIN_BYTES
"""Maximum size of a stored index."""


@dataclass(frozen=True, slots=True)
class LogIndex:
    """The index of a log."""

    size: int
    """The size of the log, in bytes."""
    lines: int
    """Number of line ends in the log."""
    stride: int
    """Lines from one entry to the next."""
    offsets: array[int]
    """Where the lines with the numbers `stride`, 2 · `stride` and so on begin; lines are numbered from 0."""
    flushes: array[int]
    """Offsets, ascending, from which on bytes have the times below."""
    times: array[int]
    """Times in milliseconds since 1970."""

    def times_of(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Return the times of the bytes between two offsets (see `TimedBytes`)."""
        first = max(bisect_right(self.flushes, begin) - 1, 0)
        last = bisect_right(self.flushes, end)
        return list(zip(self.flushes[first:last], self.times[first:last], strict=True))

    def since(self, time: int) -> int | None:
        """Return the offset of the first bytes of this time or a later one; None if there are none."""
        return next((at for at, written in zip(self.flushes, self.times, strict=True) if written >= time), None)

    def near(self, line: int) -> tuple[int, int]:
        """Return the last known line that is not after this one, and the offset where it begins."""
        entry = min(line // self.stride, len(self.offsets))
        return (entry * self.stride, self.offsets[entry - 1]) if entry else (0, 0)


class LogIndexer:
    """Makes the index of a log while it is written."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max = max_entries
        self._size = 0
        self._lines = 0
        self._stride = LINES
        self._offsets = array("Q")
        self._interval = FLUSH_MS
        self._flushes = array("Q")
        self._times = array("Q")

    def add(self, chunk: bytes, now: int) -> int:
        """Take the next bytes, written at this time (milliseconds since 1970); return the time that they get."""
        if not chunk:
            return now
        # A clock that is set back begins a new flush.
        if not self._times or not 0 <= now - self._times[-1] < self._interval:
            if len(self._times) == self._max:
                self._flushes, self._times = self._flushes[::2], self._times[::2]
                self._interval *= 2
            self._flushes.append(self._size)
            self._times.append(now)
        self._add_lines(chunk)
        self._size += len(chunk)
        return self._times[-1]

    def _add_lines(self, chunk: bytes) -> None:
        rest, begin = chunk.count(b"\n"), 0
        while (missing := self._stride - self._lines % self._stride) <= rest:
            begin = after_line(chunk, begin, missing)
            rest -= missing
            self._lines += missing
            self._offsets.append(self._size + begin)
            if len(self._offsets) == self._max:
                self._offsets = self._offsets[1::2]
                self._stride *= 2
        self._lines += rest

    def index(self) -> LogIndex:
        """Return the index of what was written."""
        return LogIndex(self._size, self._lines, self._stride, self._offsets, self._flushes, self._times)


def encode(index: LogIndex) -> bytes:
    """Return the stored form of an index."""
    header = _HEADER.pack(index.size, index.lines, index.stride, len(index.offsets), len(index.flushes))
    columns = b"".join(_differences(column) for column in (index.offsets, index.flushes, index.times))
    return MAGIC + zstd.compress(header + columns)


def decode(stored: bytes) -> LogIndex:
    """Read a stored index. Raises ValueError for anything but an index of this version."""
    if not stored.startswith(MAGIC):
        raise ValueError("it does not begin as an index of a log")
    reader = zstd.ZstdDecompressor()
    try:
        plain = reader.decompress(stored[len(MAGIC) :], _PLAIN_BYTES)
    except zstd.ZstdError as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error
    if not reader.eof or reader.unused_data or len(plain) < _HEADER.size:
        raise ValueError("it is cut short, or followed by more")
    size, lines, stride, marks, flushes = _HEADER.unpack_from(plain)
    if len(plain) != _HEADER.size + 8 * (marks + 2 * flushes) or not 0 < stride < 1 << 63:
        raise ValueError("its columns do not have the length that it says")
    columns = array("q")
    columns.frombytes(plain[_HEADER.size :])
    _little_endian(columns)
    offsets, begins = _sums(columns[:marks]), _sums(columns[marks : marks + flushes])
    times = _sums(columns[marks + flushes :])
    if marks != lines // stride or not _ascend(offsets, 1, size) or not _ascend(begins, 0, size):
        raise ValueError("its offsets do not ascend up to the size of the log")
    if any(time >= MAX_TIME for time in times):
        raise ValueError("a time is beyond the year 9999")
    return LogIndex(size, lines, stride, offsets, begins, times)


def _differences(column: array[int]) -> bytes:
    differences = array("q", (after - before for before, after in pairwise([0, *column])))
    _little_endian(differences)
    return differences.tobytes()


def _sums(differences: array[int]) -> array[int]:
    try:
        return array("Q", accumulate(differences))
    except OverflowError as error:
        raise ValueError("a number is negative, or too large") from error


def _little_endian(column: array[int]) -> None:
    if sys.byteorder == "big":
        column.byteswap()


def _ascend(offsets: array[int], least: int, most: int) -> bool:
    """Return whether these offsets ascend within the bounds."""
    if not offsets:
        return True
    return offsets[0] >= least and offsets[-1] <= most and all(before < after for before, after in pairwise(offsets))
