"""A secret: sealed texts by key, for the runs of a project or of all projects below a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.domain.config.fitting import Claim, Reference, existing, require_new
from runstream.events.run_config import Sealed
from runstream.events.secret import (
    SecretCreated,
    SecretDataReplaced,
    SecretDeleted,
    SecretEvent,
    SecretRenamed,
    TreePlace,
)


class StoredSecret(Struct, frozen=True, gc=False):
    """A secret."""

    id: str
    name: str
    parent: TreePlace
    data: Mapping[str, Sealed]
    created_at: datetime
    updated_at: datetime

    def claims(self) -> Iterator[Claim]:
        """Yield its name, which no other secret of its parent may have."""
        yield "secret", self.parent.id, self.name

    def references(self) -> Iterator[Reference]:
        """Yield its parent, which has to exist."""
        yield self.parent.kind, self.parent.id


def evolve_secret(secret: StoredSecret | None, key: str, event: SecretEvent, at: datetime) -> StoredSecret | None:
    """Return the secret after an event; None once deleted. Raises Unfit."""
    if isinstance(event, SecretCreated):
        require_new(secret, key)
        return StoredSecret(key, event.name, event.parent, event.data, at, at)
    secret = existing(secret, key)
    match event:
        case SecretRenamed(name):
            return replace(secret, name=name, updated_at=at)
        case SecretDataReplaced(data):
            return replace(secret, data=data, updated_at=at)
        case SecretDeleted():
            return None
        case _:
            assert_never(event)
