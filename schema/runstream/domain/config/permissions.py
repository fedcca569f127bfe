"""Who may do what: one table of actions and relations, and the relation of an actor to a thing.

The answer is a status: 200 for what is allowed, else the status of the refusal. Where a rule depends on the thing
(private, of an organization, with settings), there is one row for each case, and a function that picks the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, TypeAlias

from msgspec import Struct

from runstream.domain.config.organization import Organization
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import ancestors, owner_of
from runstream.domain.config.state import ConfigState
from runstream.domain.config.tree import global_visibility, group_of
from runstream.domain.config.user import User
from runstream.errors import BadRequestError, ForbiddenError, NotExistError, RunstreamError, UnauthorizedError
from runstream.events.user import TokenScope


class Actor(Struct, frozen=True):
    """The sender of a request, as authenticated."""

    user_id: str = ""
    """Empty for a request without credentials, and for the admin token."""
    admin: bool = False
    """True for the admin token, and for a user who is an administrator."""
    scope: TokenScope = "admin"
    """What the token of the request allows."""


ANONYMOUS = Actor()
ADMIN_TOKEN = Actor(admin=True)

Relation = Literal["anonymous", "stranger", "member", "owner", "admin", "admin token"]
"""What an actor is to a thing: a user has a thing of the user or is an owner or member of its organization, or is a
stranger to it; an administrator is `owner` or `member` too, and always `admin`."""
RELATIONS: tuple[Relation, ...] = ("anonymous", "stranger", "member", "owner", "admin", "admin token")
Status = Literal[200, 400, 401, 403, 404]
Target: TypeAlias = User | Organization | ProjectGroup | Project
"""What an action is about, if not the deployment."""


class Action(StrEnum):
    """What a request does; the rows of the table."""

    READ_PUBLIC_PROJECT = "read a public project"
    READ_PRIVATE_USER_PROJECT = "read a private project of a user"
    READ_PRIVATE_ORG_PROJECT = "read a private project of an organization"
    READ_PUBLIC = "read a public group or organization"
    READ_PRIVATE_USER_GROUP = "read a private group of a user"
    READ_PRIVATE_ORG = "read a private organization or a private group of one"
    CREATE_PROJECT = "create a project in a group"
    CREATE_GROUP = "create a group in a group"
    CHANGE = "change or delete a project or group"
    MOVE_INTO = "move a project or group into a group"
    LIST_SECRETS = "list secrets and variables"
    CHANGE_SECRETS = "create, change or delete secrets and variables"
    RECONFIGURE = "set up a project at its source again"
    CHANGE_ACCESS = "change the linked account of a project or refresh its repository"
    READ_DELIVERIES = "read or repeat deliveries of a project"
    CREATE_RUN = "create a run of a project"
    READ_PUBLIC_RUN = "read runs, tasks and logs of a public project"
    READ_PRIVATE_USER_RUN = "read runs, tasks and logs of a private project of a user"
    READ_PRIVATE_ORG_RUN = "read runs, tasks and logs of a private project of an organization"
    READ_DIRECT_RUN = "read direct runs of a user"
    ACT_ON_RUN = "restart, cancel or stop a run"
    ACT_ON_MEMBERS_RUN = "restart, cancel or stop a run of a project that lets members do so"
    APPROVE = "approve a task"
    DELETE_LOGS = "delete logs of a run"
    CREATE_ORGANIZATION = "create an organization"
    LIST_ORGANIZATIONS = "list organizations"
    CHANGE_ORGANIZATION = "change or delete an organization or remove a member"
    ADD_MEMBER = "add a member to an organization"
    ADD_MEMBER_BY_INVITATION = "add a member to an organization whose members are invited"
    INVITE = "invite a user"
    INVITE_DIRECT = "invite a user where members are added directly"
    READ_INVITATIONS = "read or withdraw invitations"
    ANSWER_INVITATION = "accept or reject an invitation"
    READ_SELF = "read the user who is logged in"
    READ_USER = "read a user"
    LIST_USERS = "list users or find one by an account"
    CHANGE_USERS = "create, rename or delete a user"
    USER_TOKENS = "manage the tokens, logins and linked accounts of another user"
    LINK_ACCOUNT = "link an account to a user"
    LIST_REMOTE_SOURCES = "list remote sources"
    READ_REMOTE_SOURCE = "read a remote source"
    READ_AUDIT = "read who changed something"
    CHANGE_REMOTE_SOURCES = "create, change or delete remote sources"
    MAINTAIN = "maintain, export or import the service"
    ADMINISTER = "administer executors, caches and storage, or read the whole log"
    BADGE = "read a badge"
    DIRECT_RUN = "start a direct run of a user or push to the user's repositories"


OK: Status = 200


def _row(
    anonymous: Status, stranger: Status, member: Status, owner: Status, admin: Status, admin_token: Status
) -> Mapping[Relation, Status]:
    return dict(zip(RELATIONS, (anonymous, stranger, member, owner, admin, admin_token), strict=True))


_EVERYBODY = _row(OK, OK, OK, OK, OK, OK)
_LOGGED_IN = _row(401, OK, OK, OK, OK, OK)
_OWNERS = _row(401, 403, 403, OK, OK, OK)
_OWNING_USERS = _row(401, 403, 403, OK, OK, 403)

PERMISSIONS: Mapping[Action, Mapping[Relation, Status]] = {
    Action.READ_PUBLIC_PROJECT: _EVERYBODY,
    Action.READ_PRIVATE_USER_PROJECT: _row(403, 403, OK, OK, OK, OK),
    Action.READ_PRIVATE_ORG_PROJECT: _row(403, 404, OK, OK, OK, OK),
    Action.READ_PUBLIC: _LOGGED_IN,
    Action.READ_PRIVATE_USER_GROUP: _row(401, 403, OK, OK, OK, OK),
    Action.READ_PRIVATE_ORG: _row(401, 404, OK, OK, OK, OK),
    # A project needs a user's linked account; a group follows, as clients know it.
    Action.CREATE_PROJECT: _row(401, 403, 403, OK, OK, 400),
    Action.CREATE_GROUP: _OWNING_USERS,
    Action.CHANGE: _OWNERS,
    Action.MOVE_INTO: _OWNERS,
    # Names say what a project reaches: a public project shows its code, not these.
    Action.LIST_SECRETS: _row(401, 403, OK, OK, OK, OK),
    Action.CHANGE_SECRETS: _OWNERS,
    Action.RECONFIGURE: _OWNERS,
    Action.CHANGE_ACCESS: _OWNING_USERS,
    Action.READ_DELIVERIES: _OWNERS,
    Action.CREATE_RUN: _OWNING_USERS,
    Action.READ_PUBLIC_RUN: _EVERYBODY,
    Action.READ_PRIVATE_USER_RUN: _row(403, 403, OK, OK, OK, OK),
    Action.READ_PRIVATE_ORG_RUN: _row(403, 404, OK, OK, OK, OK),
    Action.READ_DIRECT_RUN: _row(403, 403, 403, OK, OK, OK),
    Action.ACT_ON_RUN: _OWNERS,
    Action.ACT_ON_MEMBERS_RUN: _row(401, 403, OK, OK, OK, OK),
    Action.APPROVE: _OWNING_USERS,
    Action.DELETE_LOGS: _OWNERS,
    Action.CREATE_ORGANIZATION: _LOGGED_IN,
    Action.LIST_ORGANIZATIONS: _LOGGED_IN,
    Action.CHANGE_ORGANIZATION: _OWNERS,
    Action.ADD_MEMBER: _OWNERS,
    Action.ADD_MEMBER_BY_INVITATION: _row(401, 403, 403, 400, OK, OK),
    Action.INVITE: _OWNING_USERS,
    Action.INVITE_DIRECT: _row(401, 400, 400, 400, 400, 400),
    Action.READ_INVITATIONS: _OWNING_USERS,
    Action.ANSWER_INVITATION: _row(401, OK, OK, OK, OK, 403),
    Action.READ_SELF: _row(401, OK, OK, OK, OK, 403),
    Action.READ_USER: _LOGGED_IN,
    Action.LIST_USERS: _row(401, 401, 401, 401, OK, OK),
    Action.CHANGE_USERS: _row(401, 403, 403, 403, OK, OK),
    Action.USER_TOKENS: _row(401, 400, 400, OK, OK, OK),
    Action.LINK_ACCOUNT: _row(401, 400, 400, OK, 400, 403),
    Action.LIST_REMOTE_SOURCES: _EVERYBODY,
    Action.READ_REMOTE_SOURCE: _LOGGED_IN,
    Action.READ_AUDIT: _OWNERS,
    Action.CHANGE_REMOTE_SOURCES: _row(401, 403, 403, 403, OK, OK),
    Action.MAINTAIN: _row(401, 401, 401, 401, OK, OK),
    Action.ADMINISTER: _row(401, 403, 403, 403, OK, OK),
    Action.BADGE: _EVERYBODY,
    Action.DIRECT_RUN: _row(401, 401, 401, OK, 401, 403),
}
"""The status of each action for each relation."""

READING = frozenset(
    {
        Action.READ_PUBLIC_PROJECT,
        Action.READ_PRIVATE_USER_PROJECT,
        Action.READ_PRIVATE_ORG_PROJECT,
        Action.READ_PUBLIC,
        Action.READ_PRIVATE_USER_GROUP,
        Action.READ_PRIVATE_ORG,
        Action.LIST_SECRETS,
        Action.READ_DELIVERIES,
        Action.READ_PUBLIC_RUN,
        Action.READ_PRIVATE_USER_RUN,
        Action.READ_PRIVATE_ORG_RUN,
        Action.READ_DIRECT_RUN,
        Action.LIST_ORGANIZATIONS,
        Action.READ_INVITATIONS,
        Action.READ_SELF,
        Action.READ_USER,
        Action.LIST_USERS,
        Action.LIST_REMOTE_SOURCES,
        Action.READ_REMOTE_SOURCE,
        Action.READ_AUDIT,
        Action.BADGE,
    }
)
"""The actions that a token of scope `read` allows."""
RUNNING = READING | {
    Action.CREATE_RUN,
    Action.ACT_ON_RUN,
    Action.ACT_ON_MEMBERS_RUN,
    Action.APPROVE,
    Action.DIRECT_RUN,
}
"""The actions that a token of scope `run` allows."""


def relations(state: ConfigState | None, actor: Actor, thing: Target | None) -> list[Relation]:
    """Return what an actor is to a thing, the strongest last; an administrator may also be a member or owner.

    A user who was deleted since the request was authenticated is anonymous. Without a state, what is asked is about the
    deployment, and the actor is as it was authenticated.
    """
    if not actor.user_id:
        return ["admin token"] if actor.admin else ["anonymous"]
    if state is not None and actor.user_id not in state.users:
        return ["anonymous"]
    found: Relation = "stranger" if state is None else _relation(state, actor.user_id, thing)
    return [found, "admin"] if actor.admin else [found]


def _relation(state: ConfigState, user_id: str, thing: Target | None) -> Relation:
    owner = owner_of(state, group_of(state, thing)) if isinstance(thing, ProjectGroup | Project) else thing
    if isinstance(owner, Organization):
        return owner.members.get(user_id, "stranger")
    return "owner" if owner is not None and owner.id == user_id else "stranger"


def status(state: ConfigState | None, actor: Actor, action: Action, thing: Target | None = None) -> Status:
    """Return 200 if the actor may do it, else the status of the refusal; the scope of a token counts, too."""
    row = PERMISSIONS[action]
    answers = [row[relation] for relation in relations(state, actor, thing)]
    if OK not in answers:
        return answers[-1]
    allowed = actor.scope == "admin" or action in (READING if actor.scope == "read" else RUNNING)
    return OK if allowed else 403


def require(state: ConfigState | None, actor: Actor, action: Action, thing: Target | None = None) -> None:
    """Raise the refusal with its status and code, unless the actor may do it."""
    found = status(state, actor, action, thing)
    if found != OK:
        raise refusal(found, action, thing, actor)


def refusal(found: Status, action: Action, thing: Target | None, actor: Actor = ANONYMOUS) -> RunstreamError:
    """Return the error for an action that is refused with this status."""
    if found == 404:
        return _hidden(thing)
    if found == 401 and not actor.user_id:
        return UnauthorizedError(
            f"to {action.value}, log in with another account or token",
            code="loginRequired",
            hint="`runstream login URL` keeps a token for later commands",
        )
    if action is Action.INVITE_DIRECT:
        return BadRequestError(
            "users cannot be invited here", code="cannotCreateInvitation", hint="owners add members directly"
        )
    if found == 400 and action is Action.ADD_MEMBER_BY_INVITATION:
        return BadRequestError(
            "members cannot be added directly here", code="cannotAddUserToOrganization", hint="invite the user"
        )
    who = "the admin token" if actor == ADMIN_TOKEN else "you"
    message, hint = f"{who} may not {action.value}", _way_out(action, thing, actor)
    if found == 401:
        return UnauthorizedError(message, code="loginRequired", hint=hint)
    return (BadRequestError if found == 400 else ForbiddenError)(message, hint=hint)


def _way_out(action: Action, thing: Target | None, actor: Actor) -> str:
    """Return who may do what the actor may not."""
    row = PERMISSIONS[action]
    if actor.scope != "admin" and action not in (READING if actor.scope == "read" else RUNNING):
        return f"the token has the scope {actor.scope}: use one that allows more"
    if actor == ADMIN_TOKEN:
        return "it belongs to no user: log in as one, such as with `runstream login URL`"
    if row["owner"] != OK:
        return "ask an administrator"
    if isinstance(thing, User):
        return "ask the user" + (" or an administrator" if row["admin"] == OK else "")
    return "ask an owner"


def _hidden(thing: Target | None) -> NotExistError:
    """Return the error that a thing gives to strangers, who do not learn that it exists."""
    match thing:
        case Project():
            return _unseen("project", code="projectDoesNotExist")
        case ProjectGroup():
            return _unseen("project group", code="projectGroupDoesNotExist")
        case Organization():
            return _unseen("organization", code="organizationDoesNotExist")
        case _:
            return _unseen("user", code="userDoesNotExist")


def _unseen(what: str, *, code: str) -> NotExistError:
    return NotExistError(f"the {what} does not exist, or you may not see it", code=code)


def reading(state: ConfigState, thing: Organization | ProjectGroup | Project) -> Action:
    """Return the action of reading a thing."""
    if isinstance(thing, Organization):
        return Action.READ_PUBLIC if thing.visibility == "public" else Action.READ_PRIVATE_ORG
    public, of_user = _place(state, thing)
    if isinstance(thing, Project):
        if public:
            return Action.READ_PUBLIC_PROJECT
        return Action.READ_PRIVATE_USER_PROJECT if of_user else Action.READ_PRIVATE_ORG_PROJECT
    if public:
        return Action.READ_PUBLIC
    return Action.READ_PRIVATE_USER_GROUP if of_user else Action.READ_PRIVATE_ORG


def reading_runs(state: ConfigState, owner: Project | User) -> Action:
    """Return the action of reading the runs of a project, or the direct runs of a user."""
    if isinstance(owner, User):
        return Action.READ_DIRECT_RUN
    public, of_user = _place(state, owner)
    if public:
        return Action.READ_PUBLIC_RUN
    return Action.READ_PRIVATE_USER_RUN if of_user else Action.READ_PRIVATE_ORG_RUN


def acting_on_runs(owner: Project | User) -> Action:
    """Return the action of restarting, cancelling or stopping a run of a project, or a direct run of a user."""
    members = isinstance(owner, Project) and owner.settings.members_can_perform_run_actions
    return Action.ACT_ON_MEMBERS_RUN if members else Action.ACT_ON_RUN


def adding_member(*, direct: bool) -> Action:
    """Return the action of adding a member; `direct` is the deployment's mode."""
    return Action.ADD_MEMBER if direct else Action.ADD_MEMBER_BY_INVITATION


def inviting(*, direct: bool) -> Action:
    """Return the action of inviting a user; `direct` is the deployment's mode of adding members."""
    return Action.INVITE_DIRECT if direct else Action.INVITE


def _place(state: ConfigState, thing: ProjectGroup | Project) -> tuple[bool, bool]:
    """Return whether a thing is public, and whether it belongs to a user."""
    root = ancestors(state, group_of(state, thing))[-1]
    return global_visibility(state, thing) == "public", root.parent.kind == "user"


def owner_of_runs(state: ConfigState, group: str) -> Project | User | None:
    """Return whose runs a run group (`/project/<id>/…`, `/user/<id>/…`) holds; None for another group."""
    _, kind, key, *_ = [*group.split("/"), "", "", ""]
    if kind == "project":
        return state.projects.get(key)
    return state.users.get(key) if kind == "user" else None
