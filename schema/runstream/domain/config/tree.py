"""What follows from the place of a thing in the tree: who owns it, who can see it, what it inherits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import ancestors, owner_of
from runstream.domain.config.secret import StoredSecret
from runstream.domain.config.state import Change, ConfigState
from runstream.domain.config.user import User
from runstream.domain.config.variable import StoredVariable
from runstream.events.organization import Visibility
from runstream.events.project import ProjectDeleted
from runstream.events.project_group import ProjectGroupDeleted
from runstream.events.secret import SecretDeleted, TreePlace
from runstream.events.variable import VariableDeleted

Named = TypeVar("Named", StoredSecret, StoredVariable)


def group_of(state: ConfigState, thing: ProjectGroup | Project) -> ProjectGroup:
    """Return the group of a project; a group itself."""
    return state.groups[thing.parent_id] if isinstance(thing, Project) else thing


def global_visibility(state: ConfigState, thing: ProjectGroup | Project) -> Visibility:
    """Return `private` if the thing, a group above it, or its organization is private."""
    groups = ancestors(state, group_of(state, thing))
    owner = owner_of(state, groups[-1])
    seen = {thing.visibility, *(group.visibility for group in groups)}
    if not isinstance(owner, User):
        seen.add(owner.visibility)
    return "private" if "private" in seen else "public"


def places(state: ConfigState, thing: ProjectGroup | Project) -> list[TreePlace]:
    """Return the places whose secrets and variables a project or group has, the nearest first."""
    groups = [TreePlace("projectgroup", group.id) for group in ancestors(state, group_of(state, thing))]
    return [TreePlace("project", thing.id), *groups] if isinstance(thing, Project) else groups


def secrets_of(
    state: ConfigState, thing: ProjectGroup | Project, *, tree: bool = False, remove_overridden: bool = False
) -> list[StoredSecret]:
    """Return the secrets of a project or group, by name; with `tree` also those above it, the nearest first.

    `remove_overridden` keeps the first of each name.
    """
    return _inherited(
        (sorted(_secrets(state, place), key=_name) for place in _of(state, thing, tree=tree)),
        remove_overridden=remove_overridden,
    )


def variables_of(
    state: ConfigState, thing: ProjectGroup | Project, *, tree: bool = False, remove_overridden: bool = False
) -> list[StoredVariable]:
    """Return the variables of a project or group, by name; with `tree` also those above it, the nearest first.

    `remove_overridden` keeps the first of each name.
    """
    return _inherited(
        (sorted(_variables(state, place), key=_name) for place in _of(state, thing, tree=tree)),
        remove_overridden=remove_overridden,
    )


def _of(state: ConfigState, thing: ProjectGroup | Project, *, tree: bool) -> list[TreePlace]:
    return places(state, thing) if tree else places(state, thing)[:1]


def _secrets(state: ConfigState, place: TreePlace) -> Iterator[StoredSecret]:
    return (state.secrets[key] for key in state.names("secret", place.id).values())


def _variables(state: ConfigState, place: TreePlace) -> Iterator[StoredVariable]:
    return (state.variables[key] for key in state.names("variable", place.id).values())


def _name(thing: StoredSecret | StoredVariable) -> str:
    return thing.name


def _inherited(levels: Iterable[list[Named]], *, remove_overridden: bool) -> list[Named]:
    found = [thing for level in levels for thing in level]
    if not remove_overridden:
        return found
    nearest: dict[str, Named] = {}
    for thing in found:
        nearest.setdefault(thing.name, thing)
    return list(nearest.values())


def groups_below(state: ConfigState, group: ProjectGroup) -> list[str]:
    """Return the ids of a group and all groups below it, parents first."""
    groups = [group.id]
    for key in groups:  # grows while it is read: groups nest deeper than Python's stack
        groups += state.names("projectgroup", key).values()
    return groups


def deletion(state: ConfigState, thing: ProjectGroup | Project) -> list[Change]:
    """Return the deletion of a project or group with everything below it, children before their parents."""
    if isinstance(thing, Project):
        return _deletion_of_project(state, thing.id)
    changes: list[Change] = []
    for group in reversed(groups_below(state, thing)):
        changes += _deletions_in(state, group)
        for project in state.names("project", group).values():
            changes += _deletion_of_project(state, project)
        changes.append(Change("projectgroup", group, (ProjectGroupDeleted(),)))
    return changes


def _deletion_of_project(state: ConfigState, project_id: str) -> list[Change]:
    return [*_deletions_in(state, project_id), Change("project", project_id, (ProjectDeleted(),))]


def _deletions_in(state: ConfigState, place_id: str) -> Iterator[Change]:
    for key in state.names("secret", place_id).values():
        yield Change("secret", key, (SecretDeleted(),))
    for key in state.names("variable", place_id).values():
        yield Change("variable", key, (VariableDeleted(),))
