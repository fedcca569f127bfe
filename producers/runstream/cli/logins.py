"""Tokens that `runstream login` keeps: one for each service, in a file that only its user can read.

The file is `logins.json` in `runstream` below the user's configuration (XDG_CONFIG_HOME, else ~/.config). A token is
sent to its own service alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from runstream.atomic_files import replace_file
from runstream.errors import BadRequestError

MAX_BYTES = 1 << 20
"""Maximum size of the file."""


class KeptLogin(msgspec.Struct, frozen=True):
    """A token for one service."""

    token: str
    user: str = ""
    """The user's name; empty for the administrator's token."""


class KeptLogins(msgspec.Struct, frozen=True):
    """The file."""

    current: str = ""
    """The URL of the service that commands use; empty for none."""
    services: dict[str, KeptLogin] = {}
    """By URL."""

    def with_login(self, url: str, login: KeptLogin) -> KeptLogins:
        """Return the logins with one more, which is the current one."""
        return KeptLogins(service_url(url), {**self.services, service_url(url): login})

    def without(self, url: str) -> KeptLogins:
        """Return the logins without that of a service."""
        url = service_url(url)
        services = {each: login for each, login in self.services.items() if each != url}
        return replace(self, current="" if self.current == url else self.current, services=services)

    def token_of(self, url: str) -> str:
        """Return the token for a service; empty without one."""
        found = self.services.get(service_url(url))
        return "" if found is None else found.token


def service_url(url: str) -> str:
    """Return a URL as logins are kept by: scheme and host in lower case, without a slash at its end."""
    parts = urlsplit(url.strip())
    return parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower()).geturl().rstrip("/")


def logins_path(environ: Mapping[str, str]) -> Path:
    """Return the path of the file."""
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "runstream" / "logins.json"


def kept_logins(environ: Mapping[str, str]) -> KeptLogins:
    """Return the kept logins. Raises BadRequestError for a file that is broken, or that others can read."""
    path = logins_path(environ)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return KeptLogins()
    except OSError as error:
        raise BadRequestError(
            f"{path} cannot be read: {error.strerror or error}",
            code="loginsUnreadable",
            hint=f"it keeps the tokens of `runstream login`; give yourself access: chmod 600 {path}",
        ) from error
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadRequestError(
            f"{path} has tokens, and others can read or change it",
            code="loginsUnsafe",
            hint=f"chmod 600 {path}; delete the tokens if others may have read them",
        )
    try:
        return msgspec.json.decode(content, type=KeptLogins)
    except msgspec.DecodeError as error:
        raise BadRequestError(
            f"{path} cannot be read: {error}",
            code="loginsUnreadable",
            hint="delete the file, and log in again: `runstream login URL`",
        ) from error


def keep_logins(environ: Mapping[str, str], logins: KeptLogins) -> Path:
    """Write the logins; return the path of the file. Raises BadRequestError."""
    path = logins_path(environ)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(path, msgspec.json.format(msgspec.json.encode(logins), indent=2) + b"\n", mode=0o600)
    except OSError as error:
        raise BadRequestError(
            f"{path} cannot be written: {error.strerror or error}",
            code="loginsUnwritable",
            hint="set XDG_CONFIG_HOME to a folder of your own",
        ) from error
    return path
