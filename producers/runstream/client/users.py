"""Users, their tokens, organizations and invitations."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from runstream.api import InvitationView, LoginLink, MembershipView, PrivateUserView, TokenEntry, TokenView, UserView
from runstream.client.config_types import NewDirectRun, TokenScope
from runstream.client.pages import items
from runstream.client.paths import api_path, point
from runstream.client.session import Session, Stream


class _NewUserToken(Struct, omit_defaults=True):
    token_name: str
    scope: TokenScope = "admin"
    expires_at: datetime | None = None


class _UserChanges(Struct, omit_defaults=True):
    username: str | None = None
    admin: bool | None = None


class Users:
    """Operations on users; a user is named by its name or its id."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def current(self) -> PrivateUserView:
        """Return the user of the token. Raises ClientError; the administrator's token has no user."""
        return await self._session.read("/user", PrivateUserView)

    async def get(self, user: str, *, at: str = "") -> UserView:
        """Return a user; with `at` as of a time (with its zone) or a position of the config log.

        Raises ClientError (not-exist, `userDoesNotExist`).
        """
        return await self._session.read(api_path("users", user), UserView, point(at))

    def list(self) -> Stream[PrivateUserView]:
        """Read all users, by name; for administrators. Raises ClientError."""
        return self._session.streams.stream(items(self._session, "/users", list[PrivateUserView]))

    async def create(self, name: str) -> UserView:
        """Create a user. Raises ClientError (bad-request: `userAlreadyExists`, `invalidUserName`)."""
        return await self._session.write("POST", "/users", {"username": name}, UserView)

    async def update(self, user: str, *, name: str | None = None, admin: bool | None = None) -> UserView:
        """Rename a user, or make it an administrator or not; for administrators. Raises ClientError (not-exist)."""
        return await self._session.write("PUT", api_path("users", user), _UserChanges(name, admin), UserView)

    async def delete(self, user: str) -> None:
        """Delete a user with its projects, secrets and tokens. Raises ClientError (not-exist)."""
        await self._session.write("DELETE", api_path("users", user), None, type(None))

    async def login_link(self, user: str) -> LoginLink:
        """Create a link that logs a user in once, in a browser. Raises ClientError (not-exist)."""
        return await self._session.write("POST", "/auth/loginlink", {"username": user}, LoginLink)

    async def tokens(self, user: str) -> tuple[TokenEntry, ...]:
        """Return the tokens of a user, without their texts. Raises ClientError (not-exist)."""
        return await self._session.read(api_path("users", user, "tokens"), tuple[TokenEntry, ...])

    async def create_token(
        self, user: str, name: str, *, scope: TokenScope = "admin", expires_at: datetime | None = None
    ) -> str:
        """Create a token of a user and return it; the service shows it only now. Raises ClientError."""
        new = _NewUserToken(name, scope, expires_at)
        return (await self._session.write("POST", api_path("users", user, "tokens"), new, TokenView)).token

    async def delete_token(self, user: str, name: str) -> None:
        """Delete a token, which ends its use. Raises ClientError (not-exist, `userTokenDoesNotExist`)."""
        await self._session.write("DELETE", api_path("users", user, "tokens", name), None, type(None))

    async def create_direct_runs(self, run: NewDirectRun, *, idempotency_key: str = "") -> None:
        """Create the runs of a working tree that the token's user has pushed. Raises ClientError.

        With `idempotency_key`, the same request creates them once.
        """
        await self._session.write("POST", "/user/createrun", run, type(None), idempotency_key=idempotency_key)

    def organizations(self) -> Stream[MembershipView]:
        """Read the organizations of the token's user. Raises ClientError."""
        return self._session.streams.stream(items(self._session, "/user/orgs", list[MembershipView]))

    async def invitations(self) -> tuple[InvitationView, ...]:
        """Return the invitations of the token's user. Raises ClientError."""
        return await self._session.read("/user/org_invitations", tuple[InvitationView, ...], {"limit": "0"})

    async def answer_invitation(self, organization: str, answer: Literal["accept", "reject"]) -> None:
        """Accept or reject an invitation of the token's user. Raises ClientError (not-exist)."""
        path = api_path("user", "org_invitations", organization, "actions")
        await self._session.write("PUT", path, {"action_type": answer}, type(None))
