"""The base class of events."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct


class DomainEvent(Struct, frozen=True, gc=False):
    """An event. Its time is that of its commit, unless it has its own (`at`, UTC)."""

    SCHEMA_VERSION: ClassVar[int] = 1
