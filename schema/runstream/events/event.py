"""What every event has in common."""

from __future__ import annotations

from typing import ClassVar


class Event:
    """Something that happened. Its time is its commit's, unless it says its own (`at`, UTC)."""

    __slots__ = ()
    SCHEMA_VERSION: ClassVar[int] = 1
