"""Numbered lines of a step's log, picked out of its bytes as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from runstream.log_times import TimedBytes

MAX_LINES = 10_000
"""In one answer."""
MAX_BYTES = 1 << 20
"""Of the lines in one answer; the first one is always there."""
MAX_LINE_BYTES = 64 << 10
"""Of one line; the rest of a longer one is left out."""


@dataclass(frozen=True, slots=True)
class NumberedLine:
    """A line of a log."""

    number: int
    """The number of the line, from 0."""
    offset: int
    """Where it begins in the log, in bytes."""
    time: int | None
    """Of its first byte, in milliseconds since 1970; None if it is unknown."""
    data: bytes
    """Without its line end."""
    cut: bool
    """True if it is longer."""


@dataclass(frozen=True, slots=True)
class LinePage:
    """Successive lines of a log."""

    first: int
    """Number of the first line asked for."""
    lines: list[NumberedLine]
    more: bool
    """True if the log has lines after these now."""


class LineSplitter:
    """Splits parts of a log into lines, whose number and offset at the start are known."""

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self._begun: tuple[int, int | None] | None = None
        """Offset and time of the unfinished line."""
        self._data = bytearray()
        self._cut = False

    def feed(self, part: TimedBytes, most: int) -> list[NumberedLine]:
        """Return the lines that end in this part; with `most` of them, the rest of the part is ignored."""
        lines: list[NumberedLine] = []
        offset = part.offset
        for data, time in part.spans():
            at = 0
            while at < len(data):
                end = data.find(b"\n", at)
                if self._begun is None:
                    self._begun = (offset + at, time)
                self._add(data[at : len(data) if end < 0 else end])
                if end < 0:
                    break
                lines.append(self._ended())
                if len(lines) == most:
                    return lines
                at = end + 1
            offset += len(data)
        return lines

    def end(self) -> list[NumberedLine]:
        """Return the last line, if it has no line end."""
        return [] if self._begun is None else [self._ended()]

    def _add(self, data: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._data)
        self._cut = self._cut or len(data) > room
        self._data += data[:room]

    def _ended(self) -> NumberedLine:
        offset, time = self._begun or (0, None)
        line = NumberedLine(self._number, offset, time, bytes(self._data), self._cut)
        self._begun, self._cut = None, False
        self._data.clear()
        self._number += 1
        return line


class SkippedLines:
    """The lines that are left out at the beginning of a log's parts."""

    def __init__(self, lines: int) -> None:
        self._lines = lines

    def rest(self, part: TimedBytes) -> TimedBytes | None:
        """Return the next part without these lines; None if all of it is left out."""
        if self._lines:
            ends = part.data.count(b"\n")
            if ends < self._lines:
                self._lines -= ends
                return None
            part, self._lines = part.after(part.offset + after_line(part.data, 0, self._lines)), 0
        return part


async def line_page(parts: AsyncIterator[TimedBytes], number: int, first: int, count: int) -> LinePage:
    """Return `count` lines from the line `first` on, of a log whose parts begin with the line `number`.

    Fewer where the log ends, or where they are larger than MAX_BYTES.
    """
    size, skipped = 0, SkippedLines(first - number)
    splitter = LineSplitter(first)
    lines: list[NumberedLine] = []
    async for part in parts:
        if (rest := skipped.rest(part)) is None:
            continue
        for line in splitter.feed(rest, count + 1 - len(lines)):
            size += len(line.data)
            if len(lines) == count or (lines and size > MAX_BYTES):
                return LinePage(first, lines, more=True)
            lines.append(line)
    for line in splitter.end():
        if len(lines) == count or (lines and size + len(line.data) > MAX_BYTES):
            return LinePage(first, lines, more=True)
        lines.append(line)
    return LinePage(first, lines, more=False)


async def line_count(parts: AsyncIterator[TimedBytes]) -> int:
    """Return the number of lines of a log, with a last one that has no line end."""
    ends, last = 0, b"\n"
    async for part in parts:
        ends += part.data.count(b"\n")
        last = part.data[-1:] or last
    return ends + (last != b"\n")


_BLOCK = 512


def after_line(chunk: bytes, begin: int, lines: int) -> int:
    """Return the place after this many line ends, of which there are enough."""
    while (found := chunk.count(b"\n", begin, begin + _BLOCK)) < lines:
        begin += _BLOCK
        lines -= found
    for _ in range(lines):
        begin = chunk.find(b"\n", begin) + 1
    return begin
