"""The limit of failed logins from one address: texts that are no token, cookies of sessions and login links.

A credential that is right always works: many users can share an address, behind a proxy or a company's gateway, and one
of them must not lock out the others. So the limit answers failures alone, with 429 in place of 401. A short admin token
could be guessed, though, so from a limited address it is not even compared.

Tokens of users cannot be guessed. One that was revoked or has expired, and a session that has ended, are no failed
logins: a script or page that still has one always learns so, by 401.
"""

from __future__ import annotations

import ipaddress

from cachetools import TTLCache
from starlette.types import Scope

from runstream.errors import BadRequestError, UnauthorizedError

MAX_FAILURES = 30
"""Failed logins from one address, each within FAILURE_SECONDS of the one before, after which the limit applies."""
FAILURE_SECONDS = 300
MAX_ADDRESSES = 10_000
"""Maximum number of addresses that are remembered; the oldest are forgotten first."""
GUESSABLE_LENGTH = 32
"""An admin token that is shorter, in characters, may be guessed."""
_FAILURES = frozenset({"invalidToken", "invalidLoginLink", "invalidSession", "invalidPassword"})
_IPV6_NETWORK = 64


class FailedLogins:
    """The failed logins of the last minutes, by address."""

    def __init__(self) -> None:
        self._failures: TTLCache[str, int] = TTLCache(MAX_ADDRESSES, FAILURE_SECONDS)

    def __len__(self) -> int:
        """Return the number of addresses that are remembered."""
        return len(self._failures)

    def limited(self, address: str) -> bool:
        """Return whether the limit applies to an address."""
        return self._failures.get(address, 0) >= MAX_FAILURES

    def answer(self, address: str, error: Exception) -> Exception:
        """Count the error if it is a failed login, and return the error to answer with."""
        if not isinstance(error, UnauthorizedError) or error.code not in _FAILURES:
            return error
        if self.limited(address):
            return too_many()
        self._failures[address] = self._failures.get(address, 0) + 1
        return error


def too_many() -> BadRequestError:
    """Return the error for a failed login from an address with too many of them."""
    return BadRequestError(
        "too many logins failed from this address",
        code="tooManyFailedLogins",
        hint=f"correct the token, or try again in {FAILURE_SECONDS // 60} minutes",
    )


def address_of(scope: Scope) -> str:
    """Return the address of a request's sender; for IPv6 its network, from which a sender has any number of them."""
    host: str = (scope.get("client") or ("", 0))[0]
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(found, ipaddress.IPv4Address):
        return host
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_NETWORK), strict=False))
