"""How requests name things: by id, by name, or by path (`org/acme/web`), and the paths of things.

A reference to a project or a project group is a path if it has a `/`, else an id. One to a user, an organization or a
remote source is an id if it is a UUID, else a name. Names are case sensitive.
"""

from __future__ import annotations

from typing import Literal

from runstream.domain.config.organization import Organization
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.refusals import missing, shown
from runstream.domain.config.remote_source import RemoteSource
from runstream.domain.config.state import ConfigState
from runstream.domain.config.user import User
from runstream.errors import BadRequestError, NotExistError
from runstream.events.secret import TreePlace
from runstream.names import id_of


def path_elements(path: str) -> list[str]:
    """Return the elements of a path; leading, trailing and double slashes do not count."""
    return [element for element in path.split("/") if element]


def is_parent_path(parent: str, path: str) -> bool:
    """Return whether a path is below another one."""
    above, below = path_elements(parent), path_elements(path)
    return len(above) < len(below) and below[: len(above)] == above


def is_same_or_parent_path(parent: str, path: str) -> bool:
    """Return whether a path is another one or below it."""
    return path_elements(parent) == path_elements(path) or is_parent_path(parent, path)


def find_user(state: ConfigState, reference: str) -> User:
    """Return the user of this id or name. Raises NotExistError `userDoesNotExist`."""
    user = state.users.get(id_of(reference) or state.named("user", "", reference) or "")
    if user is None:
        raise missing("user", reference, code="userDoesNotExist")
    return user


def find_organization(state: ConfigState, reference: str) -> Organization:
    """Return the organization of this id or name. Raises NotExistError `organizationDoesNotExist`."""
    organization = state.organizations.get(id_of(reference) or state.named("org", "", reference) or "")
    if organization is None:
        raise missing("organization", reference, code="organizationDoesNotExist")
    return organization


def find_remote_source(state: ConfigState, reference: str) -> RemoteSource:
    """Return the remote source of this id or name. Raises NotExistError `remoteSourceDoesNotExist`."""
    source = state.remote_sources.get(id_of(reference) or state.named("remotesource", "", reference) or "")
    if source is None:
        raise missing("remote source", reference, code="remoteSourceDoesNotExist")
    return source


def find_project_group(state: ConfigState, reference: str) -> ProjectGroup:
    """Return the project group of this id or path.

    Raises BadRequestError `invalidPath`, NotExistError (also for the user or organization at the start of a path).
    """
    group = _group_at(state, reference, path_elements(reference)) if "/" in reference else _by_id(state, reference)
    if group is None:
        raise missing("project group", reference, code="projectGroupDoesNotExist")
    return group


def find_project(state: ConfigState, reference: str) -> Project:
    """Return the project of this id or path.

    Raises BadRequestError `invalidPath`, NotExistError (also for the user or organization at the start of a path).
    """
    if "/" not in reference:
        project = state.projects.get(id_of(reference) or reference)
    else:
        elements = path_elements(reference)
        _require_path(reference, elements, 3)
        group = _group_at(state, reference, elements[:-1])
        project_id = group and state.named("project", group.id, elements[-1])
        project = state.projects[project_id] if project_id else None
    if project is None:
        raise missing("project", reference, code="projectDoesNotExist")
    return project


def find_parent_group(state: ConfigState, reference: str) -> ProjectGroup:
    """Return the project group in which something is created, or to which it moves.

    Raises BadRequestError `invalidPath`, NotExistError `parentProjectGroupDoesNotExist` whatever of the path is
    missing.
    """
    try:
        return find_project_group(state, reference)
    except NotExistError as error:
        raise missing("the parent project group", reference, code="parentProjectGroupDoesNotExist") from error


def find_owner(state: ConfigState, kind: Literal["project", "projectgroup"], reference: str) -> TreePlace:
    """Return the project or project group that has secrets and variables. Raises as `find_project` does."""
    found = find_project(state, reference) if kind == "project" else find_project_group(state, reference)
    return TreePlace(kind, found.id)


def _by_id(state: ConfigState, reference: str) -> ProjectGroup | None:
    return state.groups.get(id_of(reference) or reference)


def _group_at(state: ConfigState, reference: str, elements: list[str]) -> ProjectGroup | None:
    _require_path(reference, elements, 2)
    group = state.root_group(_named_owner(state, elements[0], elements[1]))
    for name in elements[2:]:
        child = state.named("projectgroup", group.id, name)
        if child is None:
            return None
        group = state.groups[child]
    return group


def _named_owner(state: ConfigState, kind: str, name: str) -> str:
    """Return the id of the user or organization at the start of a path. Raises NotExistError."""
    found = state.named(kind, "", name)
    if found is None:
        raise (
            missing("user", name, code="userDoesNotExist")
            if kind == "user"
            else missing("organization", name, code="organizationDoesNotExist")
        )
    return found


def _require_path(reference: str, elements: list[str], least: int) -> None:
    if len(elements) < least or elements[0] not in ("user", "org"):
        raise BadRequestError(
            f"{shown(reference)} is not a path",
            code="invalidPath",
            hint="a path begins with user/NAME or org/NAME, as in org/acme/web",
        )


def owner_of(state: ConfigState, group: ProjectGroup) -> User | Organization:
    """Return the user or the organization at the root of a project group."""
    root = ancestors(state, group)[-1]
    return state.users[root.parent.id] if root.parent.kind == "user" else state.organizations[root.parent.id]


def ancestors(state: ConfigState, group: ProjectGroup) -> list[ProjectGroup]:
    """Return the group and those above it, the root group last."""
    found = [group]
    while found[-1].parent.kind == "projectgroup":
        found.append(state.groups[found[-1].parent.id])
    return found


def path_of(state: ConfigState, thing: ProjectGroup | Project) -> str:
    """Return the path of a project or project group, such as `org/acme/web`."""
    if isinstance(thing, Project):
        return f"{path_of(state, state.groups[thing.parent_id])}/{thing.name}"
    *below, root = ancestors(state, thing)
    owner = owner_of(state, root)
    return "/".join((root.parent.kind, owner.name, *(group.name for group in reversed(below))))


def parent_path_of(state: ConfigState, thing: ProjectGroup | Project) -> str:
    """Return the path of the group above; of a root group, its own path."""
    if isinstance(thing, ProjectGroup):
        return path_of(state, thing if thing.is_root else state.groups[thing.parent.id])
    return path_of(state, state.groups[thing.parent_id])


def place_of(state: ConfigState, owner: TreePlace) -> ProjectGroup | Project:
    """Return the project or project group of a secret or variable."""
    return state.projects[owner.id] if owner.kind == "project" else state.groups[owner.id]
