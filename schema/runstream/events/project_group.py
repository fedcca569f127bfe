"""The events of a project group: a folder of projects and groups."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from runstream.events.event import DomainEvent
from runstream.events.organization import Visibility


class GroupParent(Struct, frozen=True, gc=False):
    """The place of a project group: another group; the user or the organization for a root group."""

    kind: Literal["user", "org", "projectgroup"]
    id: str


class ProjectGroupCreated(DomainEvent, frozen=True):
    """A project group was created."""

    name: str
    """Empty for a root group."""
    parent: GroupParent
    visibility: Visibility


class ProjectGroupMoved(DomainEvent, frozen=True):
    """The project group got another parent, another name, or both."""

    name: str
    parent: GroupParent


class ProjectGroupVisibilityChanged(DomainEvent, frozen=True):
    """The project group was made public or private."""

    visibility: Visibility


class ProjectGroupDeleted(DomainEvent, frozen=True):
    """The project group was deleted; everything below it was deleted before."""


ProjectGroupEvent = ProjectGroupCreated | ProjectGroupMoved | ProjectGroupVisibilityChanged | ProjectGroupDeleted
PROJECT_GROUP_EVENTS: tuple[type[DomainEvent], ...] = get_args(ProjectGroupEvent)
