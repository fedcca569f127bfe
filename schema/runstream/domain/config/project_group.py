"""A project group: a folder of projects and groups, with secrets and variables for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.domain.config.fitting import Claim, Reference, existing, require_new
from runstream.events.organization import Visibility
from runstream.events.project_group import (
    GroupParent,
    ProjectGroupCreated,
    ProjectGroupDeleted,
    ProjectGroupEvent,
    ProjectGroupMoved,
    ProjectGroupVisibilityChanged,
)


class ProjectGroup(Struct, frozen=True, gc=False):
    """A project group."""

    id: str
    name: str
    """Empty for a root group."""
    parent: GroupParent
    visibility: Visibility
    created_at: datetime
    updated_at: datetime

    @property
    def is_root(self) -> bool:
        """True for the group that a user or an organization has from the start."""
        return self.parent.kind != "projectgroup"

    def claims(self) -> Iterator[Claim]:
        """Yield its name, which no other group of its parent may have."""
        yield "projectgroup", self.parent.id, self.name

    def references(self) -> Iterator[Reference]:
        """Yield its parent, which has to exist."""
        yield self.parent.kind, self.parent.id


def evolve_project_group(
    group: ProjectGroup | None, key: str, event: ProjectGroupEvent, at: datetime
) -> ProjectGroup | None:
    """Return the project group after an event; None once deleted. Raises Unfit."""
    if isinstance(event, ProjectGroupCreated):
        require_new(group, key)
        return ProjectGroup(key, event.name, event.parent, event.visibility, at, at)
    group = existing(group, key)
    match event:
        case ProjectGroupMoved(name, parent):
            return replace(group, name=name, parent=parent, updated_at=at)
        case ProjectGroupVisibilityChanged(visibility):
            return replace(group, visibility=visibility, updated_at=at)
        case ProjectGroupDeleted():
            return None
        case _:
            assert_never(event)
