"""Where the last lines of a log begin, found from its end: nothing before them is read."""

from __future__ import annotations

from runstream.objects import ObjectReader
from runstream.objects.port import CHUNK_BYTES

MAX_TAIL_BYTES = 1 << 20
"""The most that a tail has, in bytes: where its lines are longer, it begins inside of one."""


def tail_begin(text: bytes, lines: int) -> int | None:
    """Return where in the text its last lines begin; None where it has fewer."""
    end = len(text) - text.endswith(b"\n")
    for _ in range(lines):
        end = text.rfind(b"\n", 0, end)
        if end < 0:
            return None
    return end + 1


async def stored_tail(stored: ObjectReader, lines: int) -> int:
    """Return the offset in a stored log at which its last lines begin."""
    text, begin = b"", stored.size
    limit = max(stored.size - MAX_TAIL_BYTES, 0)
    while begin > limit:
        before = max(begin - CHUNK_BYTES, limit)
        text = await stored.read(before, begin - before) + text
        begin = before
        if (found := tail_begin(text, lines)) is not None:
            return begin + found
    return limit
