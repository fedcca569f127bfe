"""Which small segments become one, and which lists of segments become a list of their own.

Nothing is changed in place: a merged segment is a new object, named by the next data status; what it was made of is
deleted when no data status names it any more. Every segment is merged about as often as the archive has eightfold.
"""

from __future__ import annotations

from collections.abc import Sequence

from runstream.snapshots.segments import MAX_BYTES, MAX_COMMITS, SegmentDescription

MERGE = 8
"""How many become one."""
MERGE_FROM = 16
"""How many the data status names of a partition before that is done."""
LIST = 16
"""How many are moved into a list."""
LIST_FROM = 32
"""How many the data status names of a partition before that is done: those that are too large to be merged."""
LIST_SEGMENTS = 512
"""How many a list may have before another one is begun."""


def to_merge(segments: Sequence[SegmentDescription]) -> range | None:
    """Which neighbours become one: those whose bytes together are the fewest; None when it is not worth it."""
    if len(segments) < MERGE_FROM:
        return None
    best: tuple[int, int] | None = None
    for first in range(len(segments) - MERGE + 1):
        parts = segments[first : first + MERGE]
        size = sum(part.bytes for part in parts)
        if (
            size <= MAX_BYTES
            and sum(part.commits for part in parts) <= MAX_COMMITS
            and (best is None or size < best[0])
        ):
            best = size, first
    return range(best[1], best[1] + MERGE) if best is not None else None


def to_list(segments: Sequence[SegmentDescription]) -> int:
    """How many of the oldest belong into a list now."""
    return LIST if len(segments) >= LIST_FROM else 0
