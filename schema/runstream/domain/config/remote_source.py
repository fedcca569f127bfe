"""A remote source: a git host with an API, where users have accounts and projects have repositories."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.domain.config.fitting import Claim, Reference, existing, require_new
from runstream.events.remote_source import (
    RemoteSourceCreated,
    RemoteSourceDeleted,
    RemoteSourceEvent,
    RemoteSourceRenamed,
    RemoteSourceSettings,
    RemoteSourceSettingsChanged,
)


class RemoteSource(Struct, frozen=True, gc=False):
    """A remote source."""

    id: str
    name: str
    settings: RemoteSourceSettings
    created_at: datetime
    updated_at: datetime

    def claims(self) -> Iterator[Claim]:
        """Yield its name, which no other remote source may have."""
        yield "remotesource", "", self.name

    def references(self) -> Iterator[Reference]:
        """Yield nothing: a remote source needs nothing else."""
        yield from ()


def evolve_remote_source(
    source: RemoteSource | None, key: str, event: RemoteSourceEvent, at: datetime
) -> RemoteSource | None:
    """Return the remote source after an event; None once deleted. Raises Unfit."""
    if isinstance(event, RemoteSourceCreated):
        require_new(source, key)
        return RemoteSource(key, event.name, event.settings, at, at)
    source = existing(source, key)
    match event:
        case RemoteSourceRenamed(name):
            return replace(source, name=name, updated_at=at)
        case RemoteSourceSettingsChanged(settings):
            return replace(source, settings=settings, updated_at=at)
        case RemoteSourceDeleted():
            return None
        case _:
            assert_never(event)
