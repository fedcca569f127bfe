"""URLs of repositories, and the secrets in them."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22}
"""The port of a URL that names none, by scheme."""
_TOKEN_LETTERS = 16
"""A name without a password is a token from this length on."""


class RepositoryURL(NamedTuple):
    """A URL without its secrets, and these: a password, or a token in place of the user."""

    shown: str
    token: str = ""
    password: str = ""

    @property
    def is_secret(self) -> bool:
        """True if the URL had a secret."""
        return bool(self.token or self.password)


def split_url(url: str) -> RepositoryURL:
    """Take the secrets out of a URL. Anything else is returned unchanged."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return RepositoryURL(url)
    given, at, host = parts.netloc.rpartition("@")
    user, _, password = given.partition(":")
    if at and password:
        shown = parts._replace(netloc=f"{user}@{host}" if user else host)
        return RepositoryURL(urlunsplit(shown), "", unquote(password))
    if at and parts.scheme in ("http", "https") and len(user) >= _TOKEN_LETTERS:
        return RepositoryURL(urlunsplit(parts._replace(netloc=host)), unquote(user))
    return RepositoryURL(url)


def url_spellings(url: str) -> tuple[str, ...]:
    """Return the ways to write a URL: without and with the default port of its scheme; another port is always named.

    Raises ValueError for what is no URL.
    """
    parts = urlsplit(url)
    port = DEFAULT_PORTS.get(parts.scheme)
    if port is None or parts.port not in (None, port):
        return (url,)
    host = parts.netloc.removesuffix(f":{port}").removesuffix(":")
    return tuple(urlunsplit(parts._replace(netloc=each)) for each in (host, f"{host}:{port}"))
