"""The state of an OAuth2 login: what was asked for, while the browser is at the git host.

A state is sealed text that the browser carries, so a login that is never finished leaves nothing behind. It works once,
for 10 minutes, in the browser that has its cookie: a link to a callback does not log another browser in, and does not
link an account of its user.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from runstream.errors import BadRequestError, InternalError
from runstream.events.run_config import Sealed
from runstream.gateway.sessions import Sessions
from runstream.ids import new_id
from runstream.sealing import Keyring

OAuth2RequestType = Literal["createuserla", "loginuser", "authorize", "registeruser"]
STATE_SECONDS = 600
"""Time for which a state works."""
_BOUND = "oauth2 state"
_SECRET_BYTES = 32


class OAuth2State(msgspec.Struct, frozen=True):
    """What a browser asked for."""

    id: str
    request_type: OAuth2RequestType
    remote_source_id: str
    name: str
    """The id of the user who links an account, or the name of the user who registers."""
    redirect_url: str
    verifier: str
    """Of PKCE."""
    browser: str
    """Digest of the cookie."""
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class BegunLogin:
    """Where the browser goes: the state and the PKCE challenge of the URL, and the header with the cookie."""

    state: str
    challenge: str
    header: tuple[str, str]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class OAuth2States:
    """States sealed with a keyring; the records of sessions keep which ones were used."""

    keyring: Keyring
    sessions: Sessions

    def begin(self, request_type: OAuth2RequestType, remote_source_id: str, name: str, redirect_url: str) -> BegunLogin:
        """Return a new state. Raises InternalError without a key."""
        verifier, cookie = secrets.token_urlsafe(_SECRET_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        state = OAuth2State(
            new_id(),
            request_type,
            remote_source_id,
            name,
            redirect_url,
            verifier,
            _digest(cookie),
            self.sessions.now() + timedelta(seconds=STATE_SECONDS),
        )
        sealed = self.keyring.seal(msgspec.json.encode(state).decode(), _BOUND)
        # Lax: the host sends the browser back from another site.
        flags = f"Path=/; Max-Age={STATE_SECONDS}; HttpOnly; SameSite=Lax{'; Secure' if self.sessions.secure else ''}"
        header = "Set-Cookie", f"{self._cookie_name}={cookie}; {flags}"
        return BegunLogin(f"{sealed.key}.{sealed.value}", _challenge(verifier), header)

    async def redeem(self, text: str, cookies: Mapping[str, str]) -> OAuth2State:
        """Return what a state stands for, which then does not work again.

        Raises BadRequestError `invalidOAuth2State`, UnavailableError.
        """
        state = self._opened(text)
        if state.expires_at <= self.sessions.now():
            raise _invalid("has expired")
        if not hmac.compare_digest(_digest(cookies.get(self._cookie_name, "")), state.browser):
            raise _invalid("was not begun by this browser")
        # Revision 0: only if no request has written the record before.
        if not await self.sessions.records.keep(f"oauth2.{state.id}", b"used", STATE_SECONDS, 0):
            raise _invalid("was used already")
        return state

    def _opened(self, text: str) -> OAuth2State:
        key, _, value = text.partition(".")
        try:
            return msgspec.json.decode(self.keyring.open(Sealed(key, value), _BOUND), type=OAuth2State)
        except (InternalError, msgspec.DecodeError) as error:
            raise _invalid("was not made by this service, or was changed") from error

    @property
    def _cookie_name(self) -> str:
        return "__Host-oauth2" if self.sessions.secure else "oauth2"


def _invalid(reason: str) -> BadRequestError:
    return BadRequestError(
        f"the state of the OAuth2 login {reason}",
        code="invalidOAuth2State",
        hint=f"begin the login again; it has to end in the same browser within {STATE_SECONDS // 60} minutes",
    )
