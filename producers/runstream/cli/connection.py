"""Which service a client command talks to.

    --url and --token  >  RUNSTREAM_URL and RUNSTREAM_TOKEN  >  service.json of the local service

The local service is the one of --data-dir, else of RUNSTREAM_DATA_DIR, else of the user's data folder.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runstream.errors import BadRequestError, NotExistError

if TYPE_CHECKING:  # HTTP is imported by the commands that talk to a service; the others do not wait for it
    from runstream.client import Client


@dataclass(frozen=True, slots=True)
class Given:
    """What was said before the command; None is not said."""

    data_dir: Path | None = None
    url: str | None = None
    token: str | None = None
    detailed_errors: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service is."""

    url: str
    token: str
    data_dir: Path | None
    """Whose service it is, when it is a local one."""
    pid: int = 0


_given: ContextVar[Given | None] = ContextVar("runstream_given", default=None)


def remember(given: Given) -> None:
    """Keep what was said before the command, for the command."""
    _given.set(given)


def given() -> Given:
    """What was said before the command."""
    return _given.get() or Given()


def find_service(said: Given, environ: Mapping[str, str]) -> Service:
    """The service to talk to. Raises NotExistError, with what to do, when there is none."""
    url = said.url or environ.get("RUNSTREAM_URL", "")
    token = said.token or environ.get("RUNSTREAM_TOKEN", "")
    if not url:
        local = _local_service(_data_dir(said, environ))
        return Service(local.url, token or local.token, local.data_dir, local.pid)
    if not url.startswith(("http://", "https://")):
        raise BadRequestError(
            f"{url[:200]!r} is not the URL of a service", code="invalidURL", hint="it is like http://127.0.0.1:8000"
        )
    return Service(url, token or _token_of_local(url, _data_dir(said, environ)), None)


def connect() -> Client:
    """A client of the service to talk to, not connected yet. Raises NotExistError when there is none."""
    from runstream.client import Client

    said = given()
    service = find_service(said, os.environ)
    return Client(service.url, token=service.token, detailed_errors=said.detailed_errors)


def us_command() -> str:
    """How this command line is called to reach the same service again."""
    said = given()
    if said.data_dir is not None:
        return f"runstream --data-dir {shlex.quote(str(said.data_dir))}"
    return f"runstream --url {shlex.quote(said.url)}" if said.url else "runstream"


def _data_dir(said: Given, environ: Mapping[str, str]) -> Path:
    if said.data_dir is not None:
        return said.data_dir.expanduser()
    if environ.get("RUNSTREAM_DATA_DIR"):
        return Path(environ["RUNSTREAM_DATA_DIR"]).expanduser()
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "runstream"


def _local_service(data_dir: Path) -> Service:
    path = data_dir / "service.json"
    try:
        found = json.loads(path.read_bytes())
        return Service(str(found["url"]), str(found["token"]), data_dir, int(found.get("pid", 0)))
    except FileNotFoundError as error:
        raise NotExistError(
            f"no service runs in {data_dir}",
            code="noService",
            details={"data_dir": str(data_dir)},
            hint="start one with `runstream serve`, name its folder with --data-dir, or one elsewhere with --url",
        ) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadRequestError(
            f"{path} cannot be read: {error}", code="noService", hint="start the service again: it writes the file anew"
        ) from error


def _token_of_local(url: str, data_dir: Path) -> str:
    """The local service's token, when it is that one that the URL names; else none."""
    try:
        local = _local_service(data_dir)
    except (NotExistError, BadRequestError):
        return ""  # there is no local service: the one that was named decides whether it wants a token
    return local.token if local.url.rstrip("/") == url.rstrip("/") else ""
