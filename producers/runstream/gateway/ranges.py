"""Conditional requests for parts of what does not change any more (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=([0-9]{0,4000})-([0-9]{0,4000})", re.ASCII)
"""A range of any size, with fewer digits than `int` refuses."""


@dataclass(frozen=True, slots=True)
class ConditionalHeaders:
    """Headers of a request; empty where it has none."""

    range: str
    if_range: str
    if_none_match: str


def byte_range(header: str, size: int) -> range | None:
    """Return the bytes that a Range header names; an empty range if there are none.

    None for another unit, for several ranges and for what is no range: then the whole is the answer.
    """
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None or found[1] == found[2] == "":
        return None
    if not found[1]:
        return range(max(size - int(found[2]), 0), size)
    first, last = int(found[1]), int(found[2]) if found[2] else size - 1
    if found[2] and last < first:
        return None
    return range(first, min(last + 1, size))


def has_tag(header: str, tag: str) -> bool:
    """Return whether an If-None-Match header names this entity tag."""
    return header.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in header.split(","))
