"""Who sends a request: the admin token, a token of a user, or a session's cookies.

    Authorization: token TOKEN        the scheme in any case; Bearer means the same

A token that is not valid is refused at once, also where a route needs none: its sender expects to be known.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from runstream.config import tokens
from runstream.config.store import ConfigStore
from runstream.domain.config.state import ConfigState
from runstream.errors import UnauthorizedError
from runstream.gateway.failed_logins import GUESSABLE_LENGTH, FailedLogins, too_many
from runstream.gateway.sender import HOLDER, NO_SENDER, Sender
from runstream.gateway.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Authenticates requests."""

    token: str
    """The admin token."""
    store: ConfigStore | None = None
    """Users and their tokens; without it, there is the admin token alone."""
    sessions: Sessions | None = None
    """Logins of browsers; without it, cookies are not looked at."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    failures: FailedLogins = field(default_factory=FailedLogins)

    async def sender(self, method: str, headers: Headers, address: str = "") -> Sender:
        """Return the sender of a request from an address; NO_SENDER for a request without credentials.

        Raises UnauthorizedError for a token that is not valid, ForbiddenError for a request that changes something with
        the cookies of another site's visitor, InternalError while users are not loaded.
        """
        if authorization := headers.get("authorization", ""):
            return self._holder_of(authorization, address)
        cookies = headers.get("cookie", "")
        if self.sessions is None or not cookies:
            return NO_SENDER
        try:
            return await self.sessions.sender(cookie_parser(cookies), method, headers)
        except UnauthorizedError as error:
            if error.code != "invalidSession":
                raise
            if (answer := self.failures.answer(address, error)) is not error:
                raise answer from error
            return NO_SENDER

    def _holder_of(self, authorization: str, address: str) -> Sender:
        scheme, _, given = authorization.partition(" ")
        token = given.strip()
        if scheme.lower() not in ("token", "bearer"):
            raise _invalid()
        if len(self.token) < GUESSABLE_LENGTH and not tokens.is_token(token) and self.failures.limited(address):
            raise too_many()
        # Compared first, and in the same time for any token: the admin token works also while users are not loaded.
        if hmac.compare_digest(token.encode(), self.token.encode()):
            return HOLDER
        if self.store is None or not tokens.is_token(token):
            raise _invalid()
        return sender_with_token(self.store.state, token, self.now())


def sender_with_token(state: ConfigState, token: str, now: datetime) -> Sender:
    """Return the user of a token. Raises UnauthorizedError for an unknown, revoked or expired one."""
    actor = tokens.authenticate(state, token, now)
    return Sender(actor, f"user:{state.users[actor.user_id].name}")


def _invalid() -> UnauthorizedError:
    return UnauthorizedError(
        "the token is not valid",
        code="invalidToken",
        hint="a local service keeps its token in service.json in its data directory",
    )
