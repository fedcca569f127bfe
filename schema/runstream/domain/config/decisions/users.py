"""Decisions on users, their tokens and their linked accounts."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from runstream.domain.config.organization import Organization
from runstream.domain.config.refusals import missing, require_choice, require_name, taken
from runstream.domain.config.state import Change, ConfigState, Decision
from runstream.domain.config.tree import deletion
from runstream.domain.config.user import LinkedAccount, User, UserToken
from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.events.organization import OrganizationInvitationClosed, OrganizationMemberRemoved
from runstream.events.project_group import GroupParent, ProjectGroupCreated
from runstream.events.user import (
    AccountCredentials,
    LinkedAccountAdded,
    LinkedAccountChanged,
    LinkedAccountRemoved,
    TokenScope,
    UserAdminChanged,
    UserCreated,
    UserDeleted,
    UserRenamed,
    UserTokenCreated,
    UserTokenDeleted,
)
from runstream.names import name_problem

MAX_TOKEN_NAME = 200
"""Maximum length of a token's name, in characters."""


class NewAccount(Struct, frozen=True):
    """An account at a git host that is to be linked; its credentials are sealed."""

    id: str
    remote_source_id: str
    remote_user_id: str
    remote_username: str
    remote_user_avatar_url: str
    credentials: AccountCredentials
    oauth2_expires_at: datetime | None


class NewToken(Struct, frozen=True):
    """A token that is to be created; `digest` is its SHA-256 in hex."""

    id: str
    name: str
    digest: str
    scope: TokenScope
    expires_at: datetime | None


def decide_create_user(
    state: ConfigState, *, user_id: str, root_group_id: str, name: str, account: NewAccount | None = None
) -> Decision:
    """Create a user with a public root project group; with an account at once, for a user who registers."""
    _require_user_name(state, name)
    events: list[DomainEvent] = [UserCreated(name)]
    if account is not None:
        events.append(_added(state, account))
    root = ProjectGroupCreated("", GroupParent("user", user_id), "public")
    return [Change("user", user_id, tuple(events)), Change("projectgroup", root_group_id, (root,))]


def decide_rename_user(state: ConfigState, user: User, name: str) -> Decision:
    """Give a user another name, which must be free; its own is taken, too."""
    _require_user_name(state, name)
    return [Change("user", user.id, (UserRenamed(name),))]


def decide_set_admin(user: User, *, admin: bool) -> Decision:
    """Make a user an administrator, or no longer one."""
    return [] if user.admin == admin else [Change("user", user.id, (UserAdminChanged(admin),))]


def decide_delete_user(state: ConfigState, user: User) -> Decision:
    """Delete a user with everything below; refuse while an organization would lose its last owner."""
    joined, invited = [], []
    for kind, key in state.referrers("user", user.id):
        if kind == "org":
            organization = state.organizations[key]
            joined += [organization] if user.id in organization.members else []
            invited += [organization] if user.id in organization.invitations else []
    for organization in joined:
        if organization.owners == [user.id]:
            raise last_owner(organization, user)
    left: dict[str, list[DomainEvent]] = {}
    for organization in joined:
        left.setdefault(organization.id, []).append(OrganizationMemberRemoved(user.id))
    for organization in invited:
        left.setdefault(organization.id, []).append(OrganizationInvitationClosed(user.id, "withdrawn"))
    return [
        *(Change("org", key, tuple(events)) for key, events in left.items()),
        *deletion(state, state.root_group(user.id)),
        Change("user", user.id, (UserDeleted(),)),
    ]


def last_owner(organization: Organization, user: User) -> BadRequestError:
    """Return the error for a change that would leave an organization without an owner."""
    return BadRequestError(
        f"user {user.name!r} is the last owner of organization {organization.name!r}",
        code="lastOrganizationOwner",
        details={"organization": organization.name, "user": user.name},
        hint="make another member an owner first, or delete the organization",
    )


def _require_user_name(state: ConfigState, name: str) -> None:
    require_name(name, "a user", code="invalidUserName")
    if state.named("user", "", name) is not None:
        raise taken("user", name, code="userAlreadyExists")


def decide_create_token(user: User, token: NewToken, now: datetime) -> Decision:
    """Give a user a token; its name is free text, unique for the user."""
    if not token.name or len(token.name) > MAX_TOKEN_NAME or name_problem(token.name):
        reason = name_problem(token.name) or f"has {len(token.name)} characters"
        raise BadRequestError(
            f"the name of a token {reason}" if token.name else "the name of the token is missing",
            hint=f"a token's name has 1 to {MAX_TOKEN_NAME} characters that can be shown",
        )
    if token.name in (".", ".."):
        # The token could not be deleted by name: HTTP clients and proxies resolve such a segment of a path.
        raise BadRequestError(f"{token.name!r} is not a name for a token", hint="choose another name")
    require_choice(token.scope, ("read", "run", "admin"), "the scope of a token", code="invalidTokenScope")
    if token.expires_at is not None and token.expires_at <= now:
        raise BadRequestError(
            f"a token that expired at {token.expires_at:%Y-%m-%d %H:%M:%S} UTC would never work",
            code="invalidTokenExpiry",
            hint="give a time in the future as expires_at, or leave it out",
        )
    if any(one.name == token.name for one in user.tokens.values()):
        raise taken("token", token.name, code="userTokenAlreadyExists")
    created = UserTokenCreated(token.id, token.name, token.digest, token.scope, token.expires_at)
    return [Change("user", user.id, (created,))]


def find_token(user: User, name: str) -> UserToken:
    """Return the user's token of this name. Raises NotExistError `userTokenDoesNotExist`."""
    found = next((token for token in user.tokens.values() if token.name == name), None)
    if found is None:
        raise missing("token", name, code="userTokenDoesNotExist")
    return found


def decide_delete_token(user: User, name: str) -> Decision:
    """Revoke the user's token of this name."""
    return [Change("user", user.id, (UserTokenDeleted(find_token(user, name).id),))]


def decide_add_account(state: ConfigState, user: User, account: NewAccount) -> Decision:
    """Link an account at a git host; a user has at most one at each, and each belongs to one user."""
    if any(one.remote_source_id == account.remote_source_id for one in user.accounts.values()):
        raise BadRequestError(
            f"user {user.name!r} has an account of this remote source",
            code="linkedAccountAlreadyExists",
            hint="remove the linked account first",
        )
    return [Change("user", user.id, (_added(state, account),))]


def _added(state: ConfigState, account: NewAccount) -> LinkedAccountAdded:
    if account.remote_source_id not in state.remote_sources:
        raise missing("remote source", account.remote_source_id, code="remoteSourceDoesNotExist")
    if state.remote_user(account.remote_source_id, account.remote_user_id) is not None:
        raise BadRequestError(
            f"the remote user {account.remote_username or account.remote_user_id!r} is linked already",
            code="linkedAccountAlreadyExists",
            hint="an account of a git host belongs to one user",
        )
    return LinkedAccountAdded(
        account.id,
        account.remote_source_id,
        account.remote_user_id,
        account.remote_username,
        account.remote_user_avatar_url,
        account.credentials,
        account.oauth2_expires_at,
    )


def find_account(user: User, account_id: str) -> LinkedAccount:
    """Return the user's linked account of this id. Raises NotExistError `linkedAccountDoesNotExist`."""
    found = user.accounts.get(account_id)
    if found is None:
        raise missing("linked account", account_id, code="linkedAccountDoesNotExist")
    return found


def decide_change_account(
    user: User,
    account_id: str,
    *,
    remote_username: str,
    remote_user_avatar_url: str,
    credentials: AccountCredentials,
    oauth2_expires_at: datetime | None,
) -> Decision:
    """Replace the data of a linked account, such as renewed credentials."""
    account = find_account(user, account_id)
    changed = LinkedAccountChanged(account.id, remote_username, remote_user_avatar_url, credentials, oauth2_expires_at)
    return [Change("user", user.id, (changed,))]


def decide_remove_account(user: User, account_id: str) -> Decision:
    """Unlink an account; projects that used it need another one."""
    return [Change("user", user.id, (LinkedAccountRemoved(find_account(user, account_id).id),))]
