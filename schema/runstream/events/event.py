"""What every event has in common."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct


class Event(Struct, frozen=True, gc=False):
    """Something that happened. Its time is its commit's, unless it says its own (`at`, UTC)."""

    SCHEMA_VERSION: ClassVar[int] = 1
