"""Decisions on project groups."""

from __future__ import annotations

from runstream.domain.config.decisions.organizations import require_visibility
from runstream.domain.config.decisions.projects import require_settings
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import ancestors, path_of
from runstream.domain.config.refusals import require_name, taken
from runstream.domain.config.state import Change, ConfigState, Decision
from runstream.domain.config.tree import deletion, groups_below
from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.events.organization import Visibility
from runstream.events.project_group import (
    GroupParent,
    ProjectGroupCreated,
    ProjectGroupMoved,
    ProjectGroupVisibilityChanged,
)


def decide_create_project_group(
    state: ConfigState, *, group_id: str, name: str, parent: ProjectGroup, visibility: Visibility
) -> Decision:
    """Create a project group in another one. A project of the same name may be there."""
    require_name(name, "a project group", code="invalidProjectName")  # the code that clients know from creations
    require_visibility(visibility)
    _require_free(state, parent, name)
    created = ProjectGroupCreated(name, GroupParent("projectgroup", parent.id), visibility)
    return [Change("projectgroup", group_id, (created,))]


def decide_change_project_group(
    state: ConfigState,
    group: ProjectGroup,
    *,
    name: str | None = None,
    parent: ProjectGroup | None = None,
    visibility: Visibility | None = None,
) -> Decision:
    """Rename a project group, move it to another parent, make it public or private; None leaves a value as it is."""
    name = group.name if name is None else name
    events: list[DomainEvent] = []
    if group.is_root:
        _require_root_in_place(group, name, parent)
    else:
        require_name(name, "a project group", code="invalidProjectGroupName")
        new = parent if parent is not None else state.groups[group.parent.id]
        if (name, new.id) != (group.name, group.parent.id):
            _require_free(state, new, name)
            if group in ancestors(state, new):
                raise BadRequestError(
                    f"project group {path_of(state, group)} cannot move inside itself",
                    code="",
                    hint="choose a group that is not below it",
                )
            for below in groups_below(state, group):
                for key in state.names("project", below).values():
                    require_settings(state, new, state.projects[key].settings)
            events.append(ProjectGroupMoved(name, GroupParent("projectgroup", new.id)))
    if visibility is not None and visibility != group.visibility:
        require_visibility(visibility)
        events.append(ProjectGroupVisibilityChanged(visibility))
    return [Change("projectgroup", group.id, tuple(events))] if events else []


def _require_root_in_place(group: ProjectGroup, name: str, parent: ProjectGroup | None) -> None:
    if parent is not None:
        raise BadRequestError(
            "the root project group of a user or an organization cannot move", hint="move the groups inside it"
        )
    if name:
        raise BadRequestError(
            "the root project group of a user or an organization has no name",
            code="invalidProjectGroupName",
            details={"group": group.id},
            hint="leave the name out",
        )


def decide_delete_project_group(state: ConfigState, group: ProjectGroup) -> Decision:
    """Delete a project group with everything below it."""
    if group.is_root:
        raise BadRequestError(
            "the root project group of a user or an organization cannot be deleted",
            hint="delete the user or the organization",
        )
    return deletion(state, group)


def _require_free(state: ConfigState, parent: ProjectGroup, name: str) -> None:
    if state.named("projectgroup", parent.id, name) is not None:
        raise taken("project group", name, code="projectGroupAlreadyExists", below=path_of(state, parent))
