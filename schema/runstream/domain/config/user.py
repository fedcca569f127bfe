"""A user: tokens, and linked accounts at git hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.domain.config.fitting import Claim, Reference, existing, require_new, without
from runstream.events.user import (
    AccountCredentials,
    LinkedAccountAdded,
    LinkedAccountChanged,
    LinkedAccountRemoved,
    TokenScope,
    UserAdminChanged,
    UserCreated,
    UserDeleted,
    UserEvent,
    UserRenamed,
    UserTokenCreated,
    UserTokenDeleted,
)


class UserToken(Struct, frozen=True, gc=False):
    """A token of a user."""

    id: str
    name: str
    digest: str
    """SHA-256 of the token, in hex."""
    scope: TokenScope
    expires_at: datetime | None
    created_at: datetime


class LinkedAccount(Struct, frozen=True, gc=False):
    """An account at a git host that is linked to a user."""

    id: str
    remote_source_id: str
    remote_user_id: str
    remote_username: str
    remote_user_avatar_url: str
    credentials: AccountCredentials
    oauth2_expires_at: datetime | None


class User(Struct, frozen=True, gc=False):
    """A user."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    admin: bool = False
    tokens: Mapping[str, UserToken] = {}
    """By id."""
    accounts: Mapping[str, LinkedAccount] = {}
    """By id."""

    def claims(self) -> Iterator[Claim]:
        """Yield what no other user may have: the name, digests of tokens, accounts and their users at git hosts."""
        yield "user", "", self.name
        yield from (("token", "", token.digest) for token in self.tokens.values())
        yield from (("account", "", account_id) for account_id in self.accounts)
        yield from (("remote user", one.remote_source_id, one.remote_user_id) for one in self.accounts.values())

    def references(self) -> Iterator[Reference]:
        """Yield what has to exist: the git hosts of linked accounts."""
        yield from (("remotesource", account.remote_source_id) for account in self.accounts.values())


def evolve_user(user: User | None, key: str, event: UserEvent, at: datetime) -> User | None:
    """Return the user after an event; None once deleted. Raises Unfit."""
    if isinstance(event, UserCreated):
        require_new(user, key)
        return User(key, event.name, at, at)
    user = existing(user, key)
    match event:
        case UserRenamed(name):
            user = replace(user, name=name)
        case UserAdminChanged(admin):
            user = replace(user, admin=admin)
        case UserTokenCreated(token_id, name, digest, scope, expires_at):
            require_new(user.tokens.get(token_id), token_id)
            token = UserToken(token_id, name, digest, scope, expires_at, at)
            user = replace(user, tokens={**user.tokens, token_id: token})
        case UserTokenDeleted(token_id):
            user = replace(user, tokens=without(user.tokens, token_id))
        case LinkedAccountAdded(account_id, source_id, remote_id, remote_name, avatar_url, credentials, expires_at):
            require_new(user.accounts.get(account_id), account_id)
            account = LinkedAccount(account_id, source_id, remote_id, remote_name, avatar_url, credentials, expires_at)
            user = replace(user, accounts={**user.accounts, account_id: account})
        case LinkedAccountChanged(account_id, remote_name, avatar_url, credentials, expires_at):
            account = replace(
                existing(user.accounts.get(account_id), account_id),
                remote_username=remote_name,
                remote_user_avatar_url=avatar_url,
                credentials=credentials,
                oauth2_expires_at=expires_at,
            )
            user = replace(user, accounts={**user.accounts, account_id: account})
        case LinkedAccountRemoved(account_id):
            user = replace(user, accounts=without(user.accounts, account_id))
        case UserDeleted():
            return None
        case _:
            assert_never(event)
    return replace(user, updated_at=at)
