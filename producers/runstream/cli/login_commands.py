"""`runstream login` and `runstream logout`: keep a token, so that later commands need neither URL nor token."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from typing import Annotated

from cyclopts import Parameter

from runstream.cli.client_session import service_errors
from runstream.cli.connection import global_options, require_url
from runstream.cli.logins import KeptLogin, keep_logins, kept_logins, service_url
from runstream.cli.output import say
from runstream.client import Client, ClientError
from runstream.errors import BadRequestError, NotExistError

MAX_TOKEN = 4096
"""Maximum length of a token."""
ServiceURL = Annotated[str, Parameter(help="The URL of the service, such as https://ci.example.com.")]


def login(url: ServiceURL, /) -> int:
    """Keep a token for a service: later commands use this service, without --url and --token.

    The token is --token, or asked for on a terminal without being shown, or read from stdin. It is tried before it is
    kept, in a file that only you can read.
    """
    require_url(url)
    address = service_url(url)
    kept = kept_logins(os.environ)
    token = global_options().token or _asked_token(address)
    with service_errors():
        user = asyncio.run(_user_of(address, token))
    path = keep_logins(os.environ, kept.with_login(address, KeptLogin(token, user)))
    say(f"logged in to {address} as {f'user {user}' if user else 'administrator'}; the token is kept in {path}")
    if overridden := _overriding():
        say(f"note: {overridden} goes before it; unset it to use this login")
    return 0


def logout(url: ServiceURL = "", /) -> int:
    """Forget the token of a service; by default of the one that was logged in to last. The token stays valid."""
    kept = kept_logins(os.environ)
    address = service_url(url) or kept.current
    if address not in kept.services:
        raise NotExistError(
            f"you are not logged in to {address}" if address else "you are not logged in",
            code="notLoggedIn",
            hint=f"logins are kept for {', '.join(kept.services)}"
            if kept.services
            else "`runstream login URL` logs in",
        )
    keep_logins(os.environ, kept.without(address))
    say(f"logged out of {address}; `runstream user token delete` ends the token itself")
    return 0


def _asked_token(address: str) -> str:
    """Return the token that the user types, or the first line of stdin. Raises BadRequestError."""
    if sys.stdin.isatty():
        token = getpass.getpass(f"Token for {address}: ", stream=sys.stderr)
    else:
        token = sys.stdin.readline(MAX_TOKEN + 1)
    token = token.strip()
    if not token or len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise BadRequestError(
            "this is not a token" if token else "there is no token",
            code="invalidToken",
            hint="an administrator, or you, creates one: `runstream user token create`",
        )
    return token


async def _user_of(url: str, token: str) -> str:
    """Return the name of a token's user; empty for the administrator's token. Raises ClientError."""
    async with Client(url, token=token, detailed_errors=global_options().detailed_errors) as client:
        try:
            return (await client.users.current()).username
        except ClientError as error:
            if error.kind != "forbidden":  # the administrator's token is valid, and has no user
                raise
            return ""


def _overriding() -> str:
    """Return what names another service for later commands; empty for nothing."""
    return next((name for name in ("RUNSTREAM_URL", "RUNSTREAM_DATA_DIR") if os.environ.get(name)), "")
