"""The events of a secret of a project or project group."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from runstream.events.event import DomainEvent
from runstream.events.run_config import Sealed


class TreePlace(Struct, frozen=True, gc=False):
    """The project or project group that a secret or variable belongs to; it never changes."""

    kind: Literal["project", "projectgroup"]
    id: str


class SecretCreated(DomainEvent, frozen=True):
    """A secret was created."""

    name: str
    parent: TreePlace
    data: dict[str, Sealed]
    """Texts by key, each sealed for this secret, parent and key."""


class SecretRenamed(DomainEvent, frozen=True):
    """The secret got another name."""

    name: str


class SecretDataReplaced(DomainEvent, frozen=True):
    """The secret got other texts, or the same ones sealed with another key."""

    data: dict[str, Sealed]


class SecretDeleted(DomainEvent, frozen=True):
    """The secret was deleted."""


SecretEvent = SecretCreated | SecretRenamed | SecretDataReplaced | SecretDeleted
SECRET_EVENTS: tuple[type[DomainEvent], ...] = get_args(SecretEvent)
