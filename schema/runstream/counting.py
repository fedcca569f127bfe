"""Counts and lists as people read them: one task, two tasks."""

from __future__ import annotations

from collections.abc import Iterable


def counted(count: int, thing: str, things: str = "") -> str:
    """Return a count with its noun: `1 task`, `2 tasks`, `12,000 tasks`; `things` where the plural has no plain `s`."""
    return f"{count:,} {thing if count == 1 else things or f'{thing}s'}"


def listed(texts: Iterable[str], most: int = 5, separator: str = ", ") -> str:
    """List the first texts, at most `most`, and the number of the others."""
    every = list(texts)
    more = len(every) - most
    return separator.join(every[:most]) + (f" and {more} more" if more > 0 else "")
