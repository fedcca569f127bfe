"""`runstream user`: users, their tokens, and links to log in with."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.config_inputs import Flag
from runstream.cli.confirming import require_confirmed
from runstream.cli.finding import PastPoint, position_text
from runstream.cli.near_names import Names, near_names, user_names
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say, timestamp, warn
from runstream.client import Client, PrivateUserView, TokenEntry
from runstream.client.config_types import TokenScope
from runstream.errors import BadRequestError

Username: TypeAlias = Annotated[str, Parameter(name=["--username", "-n"], help="The user's name, or its id.")]
TokenName: TypeAlias = Annotated[str, Parameter(name=["--tokenname", "-t"], help="The token's name.")]
_USERS: dict[Column, Callable[[PrivateUserView], Cell]] = {
    Column("NAME"): lambda one: one.username,
    Column("ID"): lambda one: one.id,
    Column("ROLE"): lambda one: "administrator" if one.admin else "user",
    Column("TOKENS", wraps=True, drop=1): lambda one: ", ".join(one.tokens),
}
_TOKENS: dict[Column, Callable[[TokenEntry], Cell]] = {
    Column("NAME", wraps=True): lambda one: one.name,
    Column("SCOPE"): lambda one: one.scope,
    Column("EXPIRES"): lambda one: timestamp(one.expires_at) if one.expires_at else "never",
    Column("CREATED", drop=1): lambda one: timestamp(one.created_at),
}
_DAYS = re.compile(r"(\d{1,5})d")


def list_users(*, output: Output = "table") -> int:
    """List users, by name."""

    async def work(client: Client) -> None:
        users = [user async for user in client.users.list()]
        if output == "json":
            print_json(users)
        else:
            print_items(users, _USERS, "there are no users")

    return with_client(work)


def get_user(*, username: Username, at: PastPoint = "", output: Output = "table") -> int:
    """Show a user."""

    async def work(client: Client) -> None:
        async with near_names(username, "userDoesNotExist", user_names(client)):
            found = await client.users.get(username, at=position_text(at))
        if output == "json":
            print_json(found)
        else:
            say(f"user {found.username}\nid   {found.id}")

    return with_client(work)


def create_user(*, username: Annotated[str, Parameter(name=["--username", "-n"])], output: Output = "table") -> int:
    """Create a user.

    Parameters
    ----------
    username
        The user's name: letters, digits and single dashes, starting with a letter.
    """

    async def work(client: Client) -> None:
        made = await client.users.create(username)
        if output == "json":
            print_json(made)
        else:
            say(f"user {made.username} is created\nid  {made.id}")

    return with_client(work)


def update_user(
    *,
    username: Username,
    new_name: str | None = None,
    admin: bool | None = None,
    output: Output = "table",
) -> int:
    """Rename a user, or make it an administrator or not.

    Parameters
    ----------
    new_name
        Its new name.
    admin
        Whether it is an administrator, who may do everything.
    """

    async def work(client: Client) -> None:
        if new_name is None and admin is None:
            raise BadRequestError("nothing to change", code="nothingToChange", hint="pass --new-name or --admin")
        async with near_names(username, "userDoesNotExist", user_names(client)):
            changed = await client.users.update(username, name=new_name, admin=admin)
        if output == "json":
            print_json(changed)
        else:
            say(f"user {changed.username} is changed")

    return with_client(work)


def delete_user(*, username: Username, yes: Flag = False) -> int:
    """Delete a user with its projects, secrets, variables and tokens. Asks first on a terminal.

    Parameters
    ----------
    yes
        Delete without asking.
    """

    async def work(client: Client) -> None:
        async with near_names(username, "userDoesNotExist", user_names(client)):
            found = await client.users.get(username)
        require_confirmed(f"delete user {found.username} with its projects, secrets and tokens?", yes=yes)
        await client.users.delete(found.id)
        say(f"user {found.username} is deleted")

    return with_client(work)


def login_link(username: Username = "", *, output: Output = "table") -> int:
    """Print a link that logs a user in once, in a browser; without a name, the user of the token."""

    async def work(client: Client) -> None:
        async with near_names(username, "userDoesNotExist", user_names(client)):
            link = await client.users.login_link(username)
        if output == "json":
            print_json(link)
        else:
            say(link.url)
            _note(f"it works once, until {timestamp(link.expires_at)}")

    return with_client(work)


def list_tokens(*, username: Username, output: Output = "table") -> int:
    """List the tokens of a user, without their texts."""

    async def work(client: Client) -> None:
        async with near_names(username, "userDoesNotExist", user_names(client)):
            tokens = await client.users.tokens(username)
        if output == "json":
            print_json(tokens)
        else:
            print_items(tokens, _TOKENS, f"user {username} has no tokens")

    return with_client(work)


def create_token(
    *,
    username: Username,
    tokenname: TokenName,
    scope: TokenScope = "admin",
    expires: str = "",
    output: Output = "table",
) -> int:
    """Create a token of a user and print it. It is shown only now.

    Parameters
    ----------
    scope
        What the token allows of what its user may do: only to read, also to run and control runs, or everything.
    expires
        When it ends: a number of days such as 90d, or a time such as 2030-01-31T12:00. Default: never.
    """

    async def work(client: Client) -> None:
        async with near_names(username, "userDoesNotExist", user_names(client)):
            token = await client.users.create_token(
                username, tokenname, scope=scope, expires_at=expiry(expires, datetime.now(UTC))
            )
        if output == "json":
            print_json({"token": token})
        else:
            say(token)
            _note("keep it now: it is not shown again")

    return with_client(work)


def delete_token(*, username: Username, tokenname: TokenName) -> int:
    """Delete a token of a user: it is not accepted any more."""

    async def work(client: Client) -> None:
        async def names() -> list[str]:
            return [token.name for token in await client.users.tokens(username)]

        async with (
            near_names(username, "userDoesNotExist", user_names(client)),
            near_names(tokenname, "userTokenDoesNotExist", Names(names, f"user token list -n {username}")),
        ):
            await client.users.delete_token(username, tokenname)
        say(f"token {tokenname} of user {username} is deleted")

    return with_client(work)


def _note(line: str) -> None:
    """Tell a person; a script that takes the output needs no advice."""
    if sys.stdout.isatty():
        warn(line)


def expiry(text: str, now: datetime) -> datetime | None:
    """Return the time that a number of days or a time means; None for an empty text. Raises BadRequestError."""
    if not text:
        return None
    try:
        if days := _DAYS.fullmatch(text):
            return now + timedelta(days=int(days[1]))
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadRequestError(
            f"--expires {text[:80]!r} is neither a number of days nor a time",
            code="invalidTime",
            hint="such as 90d, 2030-01-31 or 2030-01-31T12:00+01:00",
        ) from error
