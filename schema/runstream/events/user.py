"""The events of a user, with the user's tokens and accounts at git hosts."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

from msgspec import Struct

from runstream.events.event import DomainEvent
from runstream.events.run_config import Sealed

TokenScope = Literal["read", "run", "admin"]
"""What a token allows of what its user may do: reading; runs, too; everything."""


class UserCreated(DomainEvent, frozen=True):
    """A user was created; the same batch creates the root project group."""

    name: str


class UserRenamed(DomainEvent, frozen=True):
    """The user got another name."""

    name: str


class UserAdminChanged(DomainEvent, frozen=True):
    """The user became an administrator of the deployment, or is none any more."""

    admin: bool


class UserTokenCreated(DomainEvent, frozen=True):
    """The user got a token, which was shown once."""

    token_id: str
    name: str
    digest: str
    """SHA-256 of the token, in hex."""
    scope: TokenScope
    expires_at: datetime | None
    """UTC; None for a token without an end."""


class UserTokenDeleted(DomainEvent, frozen=True):
    """The token was revoked."""

    token_id: str


class AccountCredentials(Struct, frozen=True, gc=False):
    """The credentials of a linked account, sealed for the account."""

    user_access_token: Sealed | None
    oauth2_access_token: Sealed | None
    oauth2_refresh_token: Sealed | None


class LinkedAccountAdded(DomainEvent, frozen=True):
    """An account at a git host was linked to the user."""

    account_id: str
    remote_source_id: str
    remote_user_id: str
    remote_username: str
    remote_user_avatar_url: str
    credentials: AccountCredentials
    oauth2_expires_at: datetime | None
    """When the OAuth2 access token expires, in UTC."""


class LinkedAccountChanged(DomainEvent, frozen=True):
    """The host's data of a linked account changed: names, or renewed credentials."""

    account_id: str
    remote_username: str
    remote_user_avatar_url: str
    credentials: AccountCredentials
    oauth2_expires_at: datetime | None
    """When the OAuth2 access token expires, in UTC."""


class LinkedAccountRemoved(DomainEvent, frozen=True):
    """The account is not linked to the user any more."""

    account_id: str


class UserDeleted(DomainEvent, frozen=True):
    """The user was deleted, with tokens and linked accounts; everything below the user was deleted before."""


UserEvent = (
    UserCreated
    | UserRenamed
    | UserAdminChanged
    | UserTokenCreated
    | UserTokenDeleted
    | LinkedAccountAdded
    | LinkedAccountChanged
    | LinkedAccountRemoved
    | UserDeleted
)
USER_EVENTS: tuple[type[DomainEvent], ...] = get_args(UserEvent)
