"""The service that a client command talks to.

    --url and --token  >  --data-dir  >  RUNSTREAM_URL and RUNSTREAM_TOKEN  >  RUNSTREAM_DATA_DIR
    >  the last `runstream login`  >  the local service of the user's data folder

A local service's service.json has its URL and token. A token that `runstream login` keeps is sent to its own service.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runstream.errors import BadRequestError

if TYPE_CHECKING:  # only commands that talk to a service import HTTP
    from runstream.client import Client
    from runstream.client.client import ServiceAddress

_OF_ANY_SERVICE = frozenset(
    (
        *("run", "log", "cache", "storage", "executor", "events", "maintenance", "env", "status", "export", "import"),
        *("user", "org", "projectgroup", "project", "directrun", "remotesource", "audit", "page", "version"),
    )
)
"""The first words of commands that take --url or --data-dir."""
_OF_LOCAL_SERVICE = frozenset(("serve", "stop", "doctor", "fsck", "rebuild", "migrate", "parked", "epochs", "secrets"))
"""The first words of commands that take --data-dir alone."""
_OF_NO_SERVICE = frozenset(("init", "config", "snapshot", "completion", "login", "logout"))
COMMANDS = _OF_ANY_SERVICE | _OF_LOCAL_SERVICE | _OF_NO_SERVICE
_NAMED_COMMAND = re.compile(rf"(?<![\w./-])(?<!-m )runstream ({'|'.join(sorted(COMMANDS))})\b")
_AS_MODULE = f"{shlex.quote(sys.executable)} -m runstream"
_global_options: ContextVar[GlobalOptions | None] = ContextVar("runstream_global_options", default=None)


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The options before the command; None when not given."""

    data_dir: Path | None = None
    url: str | None = None
    token: str | None = None
    detailed_errors: bool = False


def set_global_options(options: GlobalOptions) -> None:
    """Store the options before the command, for the command."""
    _global_options.set(options)


def global_options() -> GlobalOptions:
    """Return the options before the command."""
    return _global_options.get() or GlobalOptions()


def find_service(options: GlobalOptions, environ: Mapping[str, str]) -> ServiceAddress:
    """Return the service to talk to. Raises ClientError (not-exist) when there is none."""
    from runstream.cli.logins import kept_logins
    from runstream.client.client import ServiceAddress, local_service

    url = named_url(options, environ)
    if options.data_dir is not None and not url:  # options win over the environment
        environ = {}
    token = options.token or environ.get("RUNSTREAM_TOKEN", "")
    if not url and options.data_dir is None and not environ.get("RUNSTREAM_DATA_DIR"):
        url = kept_logins(environ).current
    if not url:
        local = local_service(data_dir_of(options, environ))
        return replace(local, token=token or local.token)
    require_url(url)
    token = token or kept_logins(environ).token_of(url) or _token_of_local(url, data_dir_of(options, environ))
    return ServiceAddress(url, token)


def require_url(url: str) -> None:
    """Raise BadRequestError for a text that is not the URL of a service."""
    if not url.startswith(("http://", "https://")):
        raise BadRequestError(
            f"{url[:200]!r} is not the URL of a service", code="invalidURL", hint="it is like http://127.0.0.1:8000"
        )


def named_url(options: GlobalOptions, environ: Mapping[str, str]) -> str:
    """Return the URL of --url or RUNSTREAM_URL; empty where the local service is meant."""
    return options.url or ("" if options.data_dir is not None else environ.get("RUNSTREAM_URL", ""))


def connect() -> Client:
    """Return a client of the service, not connected yet. Raises ClientError (not-exist) when there is none."""
    from runstream.client import Client

    options = global_options()
    service = find_service(options, os.environ)
    return Client(service.url, token=service.token, detailed_errors=options.detailed_errors, waiting=waiting_printer())


def waiting_printer() -> Callable[[str], None]:
    """Return a function that prints the reason of a wait when it differs from the previous one."""
    last = ""

    def show(why: str) -> None:
        nonlocal last
        if why != last:
            last = why
            sys.stderr.write(f"{why}\n" if why.startswith("waiting ") else f"waiting: {why}\n")
            sys.stderr.flush()

    return show


def program_command(command: str = "run") -> str:
    """Return the program with the options that reach the same service, to be pasted into a shell before a command.

    `command` is the first word of that command: some take no service, some only one of this machine.
    """
    options, words = global_options(), [program()]
    takes_url = command in _OF_ANY_SERVICE
    if takes_url and options.url and options.url != os.environ.get("RUNSTREAM_URL"):
        words += ["--url", shlex.quote(options.url)]
    elif options.data_dir is not None and command not in _OF_NO_SERVICE and not (takes_url and options.url):
        known = str(options.data_dir) == os.environ.get("RUNSTREAM_DATA_DIR")
        if not known or (takes_url and "RUNSTREAM_URL" in os.environ):
            words += ["--data-dir", shlex.quote(str(options.data_dir))]
    return " ".join(words)


def with_program(text: str) -> str:
    """Return a text with each command that it names as this user has to type it: `runstream run list` and the like."""
    return _NAMED_COMMAND.sub(lambda found: f"{program_command(found[1])} {found[1]}", text)


def program() -> str:
    """Return this program as a shell finds it: its name if it is on PATH, else the path that it was called by."""
    called = sys.argv[0]
    if Path(called).name != "runstream":
        as_module = Path(called).parts[-2:] == ("runstream", "__main__.py") and not shutil.which("runstream")
        return _AS_MODULE if as_module else "runstream"
    found = shutil.which("runstream")
    return "runstream" if found and Path(found).resolve() == Path(called).resolve() else shlex.quote(called)


def data_dir_of(options: GlobalOptions, environ: Mapping[str, str]) -> Path:
    """Return the local service's data directory: --data-dir, else RUNSTREAM_DATA_DIR, else the user's data folder."""
    from runstream.client.client import default_data_dir

    return default_data_dir(environ) if options.data_dir is None else options.data_dir.expanduser()


def _token_of_local(url: str, data_dir: Path) -> str:
    """Return the local service's token if the URL is its own, else an empty one."""
    from runstream.client import ClientError
    from runstream.client.client import local_service

    try:
        local = local_service(data_dir)
    except ClientError:
        return ""  # no local service: the one at the URL decides whether it needs a token
    return local.token if local.url.rstrip("/") == url.rstrip("/") else ""
