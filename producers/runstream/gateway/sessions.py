"""Sessions of browsers: opaque cookies, of which the service keeps digests, and links that log in once.

    login link --redeemed--> session --renewed, while it is used--> expired, or revoked

A session has two cookies with a secret each, and a CSRF token that requests which change something send as a header.
Records live in a KV bucket that all gateways share, and expire there by themselves. They are no events: an export does
not have them, and a service that imports it does not know these logins.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from runstream.config import tokens
from runstream.config.store import ConfigStore
from runstream.domain.config.permissions import ADMIN_TOKEN, Actor
from runstream.domain.config.state import ConfigState
from runstream.errors import ForbiddenError, UnauthorizedError
from runstream.gateway.failed_logins import GUESSABLE_LENGTH, FailedLogins
from runstream.gateway.sender import HOLDER, NO_SENDER, Sender
from runstream.ids import new_id

LINK_SECONDS = 300
"""Time for which a login link works."""
CSRF_HEADER = "X-Csrf-Token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
ADMIN = "admin"
"""In place of a user's id: the holder of the admin token."""
_MAX_AGENT = 200
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it is stored."""

    value: bytes
    revision: int


class Records(Protocol):
    """Records that expire; a key has at least two tokens, with points between them."""

    async def read(self, key: str) -> Record | None:
        """Return the record. Raises UnavailableError."""
        ...

    async def keep(self, key: str, value: bytes, seconds: int, revision: int | None = None) -> bool:
        """Write a record; with `revision`, only if the record is still that one. Raises UnavailableError."""
        ...

    async def remove(self, key: str, revision: int | None = None) -> bool:
        """Delete a record; with `revision`, only if the record is still that one. Raises UnavailableError."""
        ...

    async def below(self, prefix: str) -> Mapping[str, bytes]:
        """Return the records whose key has one more token than the prefix. Raises UnavailableError."""
        ...


class BrowserSession(msgspec.Struct, frozen=True):
    """A session; secrets are digests."""

    id: str
    user_id: str
    """Empty for the holder of the admin token."""
    primary: str
    secondary: str
    created_at: datetime
    expires_at: datetime
    user_agent: str
    admin_token: str = ""
    """Digest of the admin token at the login: another token ends the session."""
    user_token: str = ""
    """Digest of the user's token at the login, which limits the session and ends it; empty after a link."""


class _Link(msgspec.Struct, frozen=True):
    user_id: str
    secret: str
    expires_at: datetime


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _same(text: str, digest: str) -> bool:
    return hmac.compare_digest(_digest(text), digest)


def _csrf(primary: str) -> str:
    """Return the CSRF token of a session, which its first secret determines: no record of the session has it."""
    digest = hmac.digest(primary.encode(), b"CSRF token", "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _shown_agent(text: str) -> str:
    return "".join(one for one in text[:_MAX_AGENT] if one.isprintable())


@dataclass(slots=True)
class Sessions:
    """The sessions of a deployment, and login links."""

    records: Records
    admin_token: str
    store: ConfigStore | None
    seconds: int = 12 * 3600
    """Time after which a session expires that is not used."""
    secure: bool = True
    """Whether browsers send cookies over HTTPS alone."""
    origins: Collection[str] = ()
    """Origins of other sites that may change something with the cookies of their users."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    failures: FailedLogins = field(default_factory=FailedLogins)

    async def link(self, user_id: str) -> tuple[str, datetime]:
        """Return the text of a login link for a user (empty: the holder of the admin token), and when it ends."""
        key, secret = secrets.token_hex(8), secrets.token_urlsafe(_SECRET_BYTES)
        ends = self.now() + timedelta(seconds=LINK_SECONDS)
        record = _Link(user_id, _digest(secret), ends)
        await self.records.keep(f"link.{key}", msgspec.json.encode(record), LINK_SECONDS)
        return f"{key}.{secret}", ends

    async def log_in(self, text: str, address: str, user_agent: str) -> tuple[Actor, list[tuple[str, str]]]:
        """Begin a session; return its user, and the headers with its cookies.

        `text` is the secret of a login link, which then does not work again, or a token: the admin token, or one of a
        user. Raises UnauthorizedError for one that is not valid.
        """
        guessable = len(self.admin_token) < GUESSABLE_LENGTH and self.failures.limited(address)
        if not guessable and _same(text, _digest(self.admin_token)):
            return await self.begin("", user_agent)
        if tokens.is_token(text):
            user_id = tokens.authenticate(self._state, text, self.now()).user_id
            return await self.begin(user_id, user_agent, tokens.digest_of(text))
        return await self.begin(await self._redeem(text), user_agent)

    async def _redeem(self, text: str) -> str:
        """Return the user of a login link, and remove it."""
        key, _, secret = text.partition(".")
        found = await self.records.read(f"link.{key}") if key.isalnum() and key.isascii() and len(key) <= 32 else None
        link = msgspec.json.decode(found.value, type=_Link) if found is not None else None
        valid = link is not None and _same(secret, link.secret) and link.expires_at > self.now()
        if found is None or link is None or not valid or not await self.records.remove(f"link.{key}", found.revision):
            raise UnauthorizedError(
                "the login link or token is not valid",
                code="invalidLoginLink",
                hint="a link works once, for 5 minutes: `runstream user login-link` prints another one",
            )
        return link.user_id

    async def begin(self, user_id: str, user_agent: str, user_token: str = "") -> tuple[Actor, list[tuple[str, str]]]:
        """Begin a session of a user who has proven to be that user; return the user, and the headers with its cookies.

        `user_token` is the digest of the token that proved it, which limits the session.
        """
        primary, secondary, now = (
            secrets.token_urlsafe(_SECRET_BYTES),
            secrets.token_urlsafe(_SECRET_BYTES),
            self.now(),
        )
        session = BrowserSession(
            new_id(),
            user_id,
            _digest(primary),
            _digest(secondary),
            now,
            now + timedelta(seconds=self.seconds),
            _shown_agent(user_agent),
            "" if user_id else _digest(self.admin_token),
            user_token,
        )
        actor, _ = self._actor(session)
        await self.records.keep(_key(session), msgspec.json.encode(session), self.seconds)
        return actor, self._cookies(session, primary, secondary)

    async def sender(self, cookies: Mapping[str, str], method: str, headers: Mapping[str, str]) -> Sender:
        """Return the sender of a request with cookies; NO_SENDER without a valid session.

        Raises UnauthorizedError if the user was deleted, or if the cookies have the id of a session and not its
        secrets, ForbiddenError for a request that changes something and comes
        from another site, or without the CSRF token.
        """
        primary, secondary = cookies.get(self._name("session"), ""), cookies.get("secondarysession", "")
        found = await self._find(primary, secondary) if primary and secondary else None
        if found is None:
            return NO_SENDER
        session, revision = found
        csrf = _csrf(primary.rpartition(".")[2])
        if method not in SAFE_METHODS:
            self._require_own_site(csrf, headers)
        actor, author = self._actor(session)
        sent = [(CSRF_HEADER, csrf), *await self._renewed(session, revision, primary, secondary)]
        return Sender(actor, author, session.id, sent)

    async def _find(self, primary: str, secondary: str) -> tuple[BrowserSession, int] | None:
        owner, _, rest = primary.partition(".")
        key, _, secret = rest.partition(".")
        if not all(
            part and part.isascii() and part.replace("-", "").isalnum() and len(part) <= 40 for part in (owner, key)
        ):
            return None
        found = await self.records.read(f"session.{owner}.{key}")
        if found is None:
            return None
        session = msgspec.json.decode(found.value, type=BrowserSession)
        if not (_same(secret, session.primary) and _same(secondary, session.secondary)):
            raise UnauthorizedError(
                "the cookies are not those of a session", code="invalidSession", hint="delete them, and log in again"
            )
        if session.expires_at <= self.now() or (
            not session.user_id and not _same(self.admin_token, session.admin_token)
        ):
            return None
        return session, found.revision

    def _require_own_site(self, csrf: str, headers: Mapping[str, str]) -> None:
        site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin", "")
        if site not in ("same-origin", "none") and origin not in self.origins:
            raise ForbiddenError(
                "a page of another site may not change anything with your session",
                code="crossSiteRequest",
                hint="use a token, or let the administrator allow the site (cors_origins)",
            )
        given = headers.get(CSRF_HEADER.lower(), "")
        if not hmac.compare_digest(given.encode(), csrf.encode()):
            raise ForbiddenError(
                "the CSRF token is not the session's" if given else "the request has no CSRF token",
                code="invalidCsrfToken",
                hint=f"send the header {CSRF_HEADER} with its value in the last response",
            )

    def _actor(self, session: BrowserSession) -> tuple[Actor, str]:
        if not session.user_id:
            return ADMIN_TOKEN, HOLDER.author
        user = self._state.users.get(session.user_id)
        if user is None:
            raise UnauthorizedError("the user of this session was deleted", code="sessionEnded", hint="log in again")
        if session.user_token:
            if self._state.token(session.user_token) is None:
                raise UnauthorizedError(
                    "the token of this session was revoked", code="sessionEnded", hint="log in again"
                )
            actor = tokens.authenticate_digest(self._state, session.user_token, self.now())
        else:
            actor = Actor(user.id, user.admin)
        return actor, f"user:{user.name}"

    @property
    def _state(self) -> ConfigState:
        return self.store.state if self.store is not None else ConfigState()

    async def _renewed(
        self, session: BrowserSession, revision: int, primary: str, secondary: str
    ) -> list[tuple[str, str]]:
        """Renew a session of which less than half of the time is left; return its cookies then."""
        now = self.now()
        if session.expires_at - now > timedelta(seconds=self.seconds / 2):
            return []
        longer = msgspec.structs.replace(session, expires_at=now + timedelta(seconds=self.seconds))
        # Not if it was revoked, or renewed, since it was read.
        if not await self.records.keep(_key(session), msgspec.json.encode(longer), self.seconds, revision):
            return []
        return self._cookies(longer, primary.rpartition(".")[2], secondary)

    async def of(self, owner: str) -> list[BrowserSession]:
        """Return the sessions of a user (by id; ADMIN for the holder of the admin token), the oldest first."""
        found = [
            msgspec.json.decode(value, type=BrowserSession)
            for value in (await self.records.below(f"session.{owner}")).values()
        ]
        return sorted((one for one in found if one.expires_at > self.now()), key=lambda one: one.created_at)

    async def revoke(self, owner: str, session_id: str) -> bool:
        """End a session; return whether it was there."""
        there = any(one.id == session_id for one in await self.of(owner))
        return there and await self.records.remove(f"session.{owner}.{session_id}")

    def ended_cookies(self) -> list[tuple[str, str]]:
        """Return the headers that delete the cookies."""
        names = (self._name("session"), "secondarysession", self._name("csrf"))
        return [self._cookie(name, "", 0, http_only=True) for name in names]

    def _cookies(self, session: BrowserSession, primary: str, secondary: str) -> list[tuple[str, str]]:
        csrf = _csrf(primary)
        return [
            self._cookie(
                self._name("session"), f"{_owner(session)}.{session.id}.{primary}", self.seconds, http_only=True
            ),
            self._cookie("secondarysession", secondary, self.seconds, http_only=False),
            self._cookie(self._name("csrf"), csrf, self.seconds, http_only=False),
            (CSRF_HEADER, csrf),
        ]

    def _name(self, name: str) -> str:
        return f"__Host-{name}" if self.secure else name

    def _cookie(self, name: str, value: str, seconds: int, *, http_only: bool) -> tuple[str, str]:
        flags = ("; Secure" if self.secure else "") + ("; HttpOnly" if http_only else "")
        return "Set-Cookie", f"{name}={value}; Path=/; Max-Age={seconds}; SameSite=Strict{flags}"


def _owner(session: BrowserSession) -> str:
    return session.user_id or ADMIN


def _key(session: BrowserSession) -> str:
    return f"session.{_owner(session)}.{session.id}"
