"""Times of a step's log: a part of a log with the times of its bytes, and lines with their time in front."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MAX_TIME = 253_402_300_800_000
"""Milliseconds from 1970 to the year 10000."""

UNKNOWN = b"- "
"""Before a line whose time is unknown."""


@dataclass(frozen=True, slots=True)
class TimedBytes:
    """A part of a log."""

    offset: int
    """The position of its first byte in the log."""
    data: bytes
    times: Sequence[tuple[int, int]] = ()
    """Offsets in the log, ascending, each with the time of the bytes from there on, in milliseconds since 1970.

    The time of bytes before the first one is unknown.
    """

    def after(self, offset: int) -> TimedBytes:
        """Return the bytes from an offset in the log on."""
        return self if offset <= self.offset else TimedBytes(offset, self.data[offset - self.offset :], self.times)

    def time(self, offset: int) -> int | None:
        """Return the time of the byte at an offset in the log; None if it is unknown."""
        number = bisect_right(self.times, offset, key=lambda one: one[0])
        return self.times[number - 1][1] if number else None

    def spans(self) -> Iterator[tuple[bytes, int | None]]:
        """Yield the bytes with their time, None where it is unknown."""
        begin, end = self.offset, self.offset + len(self.data)
        known = self.time(begin)
        for at, time in self.times[bisect_right(self.times, begin, key=lambda one: one[0]) :]:
            if at >= end:
                break
            if at > begin:
                yield self.data[begin - self.offset : at - self.offset], known
            begin, known = max(at, begin), time
        if begin < end:
            yield self.data[begin - self.offset :], known


async def offset_since(parts: AsyncIterator[TimedBytes], time: int) -> int:
    """Return the offset of the first line that was begun at this time or later; the end of the log if none was."""
    end, within = 0, False
    async for part in parts:
        end = part.offset
        for data, written in part.spans():
            if written is not None and written >= time:
                begin = data.find(b"\n") + 1 if within else 0
                if (begin or not within) and begin < len(data):
                    return end + begin
            within = not data.endswith(b"\n")
            end += len(data)
    return end


def moment(time: int) -> datetime:
    """Return a time in milliseconds since 1970 as a date, in UTC."""
    return datetime.fromtimestamp(time // 1000, UTC).replace(microsecond=time % 1000 * 1000)


def milliseconds(date: datetime) -> int:
    """Return a date with a time zone in milliseconds since 1970."""
    return (date - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


def stamp(time: int | None) -> bytes:
    """Return what stands before a line of this time: RFC 3339 in UTC, with milliseconds."""
    if time is None:
        return UNKNOWN
    return moment(time).isoformat(timespec="milliseconds").replace("+00:00", "Z ").encode()


class StampedLines:
    """Puts before each line of a log the time at which its first byte was written."""

    def __init__(self) -> None:
        self._begins = True
        """True where the next byte is the first one of a line."""

    def feed(self, part: TimedBytes) -> bytes:
        """Return the lines of the next part of the log."""
        return b"".join(self._stamped(data, stamp(time)) for data, time in part.spans())

    def _stamped(self, data: bytes, before: bytes) -> bytes:
        text = data.replace(b"\n", b"\n" + before)
        if self._begins:
            text = before + text
        self._begins = data.endswith(b"\n")
        return text[: -len(before)] if self._begins else text
