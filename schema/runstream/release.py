"""Which release this is."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """Return the release's version; its metadata is read once, so that a process out of open files still knows it."""
    return metadata.version("runstream")
