"""The commands of the reference, as decisions of the domain, and the state as the reference has it."""

from __future__ import annotations

from typing import Any

from runstream.domain.config.decisions.organizations import (
    decide_answer_invitation,
    decide_change_organization,
    decide_create_organization,
    decide_delete_organization,
    decide_invite,
    decide_remove_member,
    decide_set_member,
    decide_withdraw_invitation,
)
from runstream.domain.config.decisions.project_groups import (
    decide_change_project_group,
    decide_create_project_group,
    decide_delete_project_group,
)
from runstream.domain.config.decisions.projects import (
    MANUAL,
    SETTINGS,
    decide_change_project,
    decide_create_project,
    decide_delete_project,
)
from runstream.domain.config.decisions.secrets import (
    decide_change_secret,
    decide_change_variable,
    decide_create_secret,
    decide_create_variable,
    decide_delete_secret,
    decide_delete_variable,
    find_secret,
    find_variable,
)
from runstream.domain.config.decisions.users import decide_create_user, decide_delete_user, decide_rename_user
from runstream.domain.config.references import (
    find_organization,
    find_owner,
    find_parent_group,
    find_project,
    find_project_group,
    find_user,
    path_of,
)
from runstream.domain.config.state import ConfigState, Decision
from runstream.domain.config.tree import global_visibility
from runstream.events.run_config import Sealed
from runstream.events.variable import SecretValue
from tests.domain.config.reference import Reference

SEALED = Sealed("key", "sealed")
DATA = {"text": SEALED}
VALUES = (SecretValue("s", "text", None),)


def decide(state: ConfigState, new_id: Any, command: str, *args: Any) -> Decision:
    """Decide one of the reference's commands."""
    match command, args:
        case "create_user", (name,):
            return decide_create_user(state, user_id=new_id(), root_group_id=new_id(), name=name)
        case "rename_user", (name, new):
            return decide_rename_user(state, find_user(state, name), new)
        case "delete_user", (name,):
            return decide_delete_user(state, find_user(state, name))
        case "create_org", (name, visibility, creator):
            user = None if creator is None else find_user(state, creator)
            return decide_create_organization(
                state,
                organization_id=new_id(),
                root_group_id=new_id(),
                name=name,
                visibility=visibility,
                creator=user,
            )
        case "change_org", (name, visibility):
            return decide_change_organization(find_organization(state, name), visibility)
        case "delete_org", (name,):
            return decide_delete_organization(state, find_organization(state, name))
        case "set_member", (org, user, role):
            return decide_set_member(find_organization(state, org), find_user(state, user), role)
        case "remove_member", (org, user):
            return decide_remove_member(find_organization(state, org), find_user(state, user))
        case "invite", (org, user, role):
            return decide_invite(
                find_organization(state, org), find_user(state, user), invitation_id=new_id(), role=role
            )
        case "answer", (org, user, action):
            return decide_answer_invitation(find_organization(state, org), find_user(state, user), action)
        case "withdraw", (org, user):
            return decide_withdraw_invitation(find_organization(state, org), find_user(state, user))
        case _:
            return _decide_in_tree(state, new_id, command, *args)


def _decide_in_tree(state: ConfigState, new_id: Any, command: str, *args: Any) -> Decision:
    match command, args:
        case "create_group", (parent, name, visibility):
            group = find_parent_group(state, parent)
            return decide_create_project_group(state, group_id=new_id(), name=name, parent=group, visibility=visibility)
        case "change_group", (path, name, parent, visibility):
            to = None if parent is None else find_parent_group(state, parent)
            group = find_project_group(state, path)
            return decide_change_project_group(state, group, name=name, parent=to, visibility=visibility)
        case "delete_group", (path,):
            return decide_delete_project_group(state, find_project_group(state, path))
        case "create_project", (parent, name, visibility):
            return decide_create_project(
                state,
                project_id=new_id(),
                name=name,
                parent=find_parent_group(state, parent),
                visibility=visibility,
                repository=MANUAL,
                settings=SETTINGS,
                webhook_secret=SEALED,
            )
        case "change_project", (path, name, parent, visibility):
            to = None if parent is None else find_parent_group(state, parent)
            project = find_project(state, path)
            return decide_change_project(state, project, name=name, parent=to, visibility=visibility)
        case "delete_project", (path,):
            return decide_delete_project(state, find_project(state, path))
        case "create_value", (sort, kind, path, name):
            place, key = find_owner(state, kind, path), new_id()
            if sort == "secret":
                return decide_create_secret(state, secret_id=key, parent=place, name=name, data=DATA)
            return decide_create_variable(state, variable_id=key, parent=place, name=name, values=VALUES)
        case "rename_value", (sort, kind, path, name, new):
            place = find_owner(state, kind, path)
            if sort == "secret":
                return decide_change_secret(state, find_secret(state, place, name), name=new)
            return decide_change_variable(state, find_variable(state, place, name), name=new)
        case "delete_value", (sort, kind, path, name):
            place = find_owner(state, kind, path)
            if sort == "secret":
                return decide_delete_secret(find_secret(state, place, name))
            return decide_delete_variable(find_variable(state, place, name))
        case _:
            raise ValueError(command)


def as_reference(state: ConfigState) -> Reference:
    """The state, as the reference has it."""
    names = {user.id: user.name for user in state.users.values()}
    groups = {group.id: path_of(state, group) for group in state.groups.values()}
    projects = {project.id: path_of(state, project) for project in state.projects.values()}
    places = groups | projects
    values: list[tuple[str, Any]] = [("secret", one) for one in state.secrets.values()]
    values += [("variable", one) for one in state.variables.values()]
    things: list[tuple[str, str, Any]] = [("projectgroup", groups[one.id], one) for one in state.groups.values()]
    things += [("project", projects[one.id], one) for one in state.projects.values()]
    things += [("org", one.name, one) for one in state.organizations.values()]
    return Reference(
        {*groups.values()},
        {*projects.values()},
        {(sort, one.parent.kind, places[one.parent.id], one.name) for sort, one in values},
        {(kind, path) for kind, path, one in things if one.visibility == "private"},
        {one.name: {names[key]: role for key, role in one.members.items()} for one in state.organizations.values()},
        {
            one.name: {names[key]: invitation.role for key, invitation in one.invitations.items()}
            for one in state.organizations.values()
        },
    )


def check(state: ConfigState, reference: Reference) -> None:
    """The state is that of the reference, and every index finds what exists, and nothing else."""
    assert as_reference(state) == reference
    for group in state.groups.values():
        path = path_of(state, group)
        assert find_project_group(state, path) is find_project_group(state, group.id) is group
        assert (global_visibility(state, group) == "private") is reference.is_private("projectgroup", path)
    for project in state.projects.values():
        path = path_of(state, project)
        assert find_project(state, path) is find_project(state, project.id) is project
        assert (global_visibility(state, project) == "private") is reference.is_private("project", path)
    claims = [claim for _, thing in state.everything() for claim in thing.claims()]
    assert len(set(claims)) == len(claims)
    for _, thing in state.everything():
        for space, parent, name in thing.claims():
            assert state.named(space, parent, name) == state.names(space, parent)[name] == thing.id
    referred = {(kind, thing.id, other) for kind, thing in state.everything() for other in thing.references()}
    found = {(*by, (kind, one.id)) for kind, one in state.everything() for by in state.referrers(kind, one.id)}
    assert found == referred
    for organization in state.organizations.values():
        assert organization.owners or organization.creator_user_id == "" or not organization.members
