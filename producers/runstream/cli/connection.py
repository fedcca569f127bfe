"""Which service a client command talks to.

    --url and --token  >  --data-dir  >  RUNSTREAM_URL and RUNSTREAM_TOKEN  >  the local service

The local service is that of RUNSTREAM_DATA_DIR, else of the user's data folder; its service.json says where it is.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runstream.errors import BadRequestError

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


_AS_MODULE = f"{shlex.quote(sys.executable)} -m runstream"
_given: ContextVar[Given | None] = ContextVar("runstream_given", default=None)


def remember(given: Given) -> None:
    """Keep what was said before the command, for the command."""
    _given.set(given)


def given() -> Given:
    """What was said before the command."""
    return _given.get() or Given()


def find_service(said: Given, environ: Mapping[str, str]) -> Service:
    """Return the service to talk to. Raises ClientError (not-exist) where there is none."""
    if said.data_dir is not None and not said.url:  # what the command names wins over the environment
        environ = {}
    url = said.url or environ.get("RUNSTREAM_URL", "")
    token = said.token or environ.get("RUNSTREAM_TOKEN", "")
    if not url:
        local = _local_service(data_dir_of(said, environ))
        return Service(local.url, token or local.token, local.data_dir, local.pid)
    if not url.startswith(("http://", "https://")):
        raise BadRequestError(
            f"{url[:200]!r} is not the URL of a service", code="invalidURL", hint="it is like http://127.0.0.1:8000"
        )
    return Service(url, token or _token_of_local(url, data_dir_of(said, environ)), None)


def connect() -> Client:
    """Return a client of the service to talk to, not connected yet. Raises ClientError (not-exist) for none."""
    from runstream.client import Client

    said = given()
    service = find_service(said, os.environ)
    return Client(
        service.url, token=service.token, detailed_errors=said.detailed_errors, waiting=_once_for_each(_tell_waiting)
    )


def _tell_waiting(why: str) -> None:
    sys.stderr.write(f"waiting: {why}\n")
    sys.stderr.flush()


def _once_for_each(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Call `tell` only when the reason is another than the one before."""
    last = ""

    def told(why: str) -> None:
        nonlocal last
        if why != last:
            last = why
            tell(why)

    return told


def us_command() -> str:
    """Return how this command line is called to reach the same service again, ready to be pasted."""
    said, program = given(), _program(sys.argv[0])
    if said.data_dir is not None and str(said.data_dir) != os.environ.get("RUNSTREAM_DATA_DIR"):
        return f"{program} --data-dir {shlex.quote(str(said.data_dir))}"
    if said.url and said.url != os.environ.get("RUNSTREAM_URL"):
        return f"{program} --url {shlex.quote(said.url)}"
    return program


def _program(called: str) -> str:
    """Return what a shell understands as this program: its name where it is on PATH, else the path it was called by."""
    if Path(called).name != "runstream":
        as_module = Path(called).parts[-2:] == ("runstream", "__main__.py") and not shutil.which("runstream")
        return _AS_MODULE if as_module else "runstream"
    found = shutil.which("runstream")
    return "runstream" if found and Path(found).resolve() == Path(called).resolve() else shlex.quote(called)


def data_dir_of(said: Given, environ: Mapping[str, str]) -> Path:
    """Return the local service's data directory: --data-dir, else RUNSTREAM_DATA_DIR, else the user's data folder."""
    from runstream.client.client import default_data_dir

    return default_data_dir(environ) if said.data_dir is None else said.data_dir.expanduser()


def _local_service(data_dir: Path) -> Service:
    from runstream.client.client import local_service

    local = local_service(data_dir)
    return Service(local.url, local.token, local.data_dir, local.pid)


def _token_of_local(url: str, data_dir: Path) -> str:
    """The local service's token, when it is that one that the URL names; else none."""
    from runstream.client import ClientError

    try:
        local = _local_service(data_dir)
    except ClientError:
        return ""  # there is no local service: the one that was named decides whether it wants a token
    return local.token if local.url.rstrip("/") == url.rstrip("/") else ""
