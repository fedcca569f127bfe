"""User tokens: texts with a recognizable prefix and a checksum, of which only the SHA-256 is stored.

    rst_<32 letters and digits><6 letters and digits>

The last six are the CRC-32 of what stands before them, so that scanners for leaked secrets, and we, recognize a token
without asking a server.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from datetime import datetime

from runstream.domain.config.permissions import Actor
from runstream.domain.config.state import ConfigState
from runstream.errors import UnauthorizedError

PREFIX = "rst_"
_ALPHABET = string.digits + string.ascii_letters
_RANDOM = 32
"""Random characters: 190 bits."""
_CHECK = 6
_TOKEN = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_RANDOM}}})([0-9A-Za-z]{{{_CHECK}}})")


def new_token() -> tuple[str, str]:
    """Return a new token, to be shown once, and its digest, to be stored."""
    text = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    text += _checksum(text)
    return text, digest_of(text)


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_token(text: str) -> bool:
    """Return whether a text has the form and the checksum of a token."""
    found = _TOKEN.fullmatch(text)
    return found is not None and _checksum(text[:-_CHECK]) == found[2]


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def authenticate(state: ConfigState, token: str, now: datetime) -> Actor:
    """Return the user of a token as an actor. Raises UnauthorizedError for an unknown, revoked or expired one."""
    if not is_token(token):
        raise UnauthorizedError(
            "the text is not a token",
            code="invalidToken",
            hint="was it copied in part? `runstream user token create` makes one",
        )
    return authenticate_digest(state, digest_of(token), now)


def authenticate_digest(state: ConfigState, digest: str, now: datetime) -> Actor:
    """Return the user of the token with this digest. Raises UnauthorizedError as `authenticate` does."""
    found = state.token(digest)
    if found is None:
        raise UnauthorizedError(
            "the token is unknown",
            code="unknownToken",
            hint="was it revoked, or is it of another service? `runstream user token create` makes one",
        )
    user, own = found
    if own.expires_at is not None and own.expires_at <= now:
        raise UnauthorizedError(
            f"token {own.name!r} of user {user.name!r} expired at {own.expires_at:%Y-%m-%d %H:%M:%S} UTC",
            code="tokenExpired",
            hint="create another one: `runstream user token create`",
        )
    return Actor(user.id, user.admin, own.scope)
