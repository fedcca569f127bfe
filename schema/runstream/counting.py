"""Counts as people read them: one task, two tasks."""

from __future__ import annotations


def counted(count: int, thing: str, things: str = "") -> str:
    """Return a count with its noun: `1 task`, `2 tasks`, `12,000 tasks`; `things` where the plural has no plain `s`."""
    return f"{count:,} {thing if count == 1 else things or f'{thing}s'}"
