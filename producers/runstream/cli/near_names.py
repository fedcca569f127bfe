"""Errors about a thing that does not exist name the thing that may be meant."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

from runstream.cli.finding import did_you_mean
from runstream.client import Client, ClientError

MAX_NAMES = 300
"""Maximum number of names that are compared with a mistyped one."""


class Names(NamedTuple):
    """Names that may be meant."""

    read: Callable[[], Awaitable[Sequence[str]]]
    listing: str
    """The command that lists them."""


@contextlib.asynccontextmanager
async def near_names(text: str, code: str, names: Names) -> AsyncIterator[None]:
    """Let the hint of a ClientError with this code name the closest of the names, or else the command for all."""
    try:
        yield
    except ClientError as error:
        if error.code == code:
            near = ""
            with contextlib.suppress(ClientError):  # the names may be hidden from this user
                near = did_you_mean(text, await names.read())
            error.hint = (
                f"{near}`runstream {names.listing}` lists what there is" if near or not error.hint else error.hint
            )
        raise


def user_names(client: Client) -> Names:
    """Return a reader of the names of users; only administrators see all of them."""

    async def names() -> list[str]:
        return await first_names(user.username async for user in client.users.list())

    return Names(names, "user list")


def organization_names(client: Client) -> Names:
    """Return a reader of the names of organizations that the user may see."""

    async def names() -> list[str]:
        return await first_names(one.name async for one in client.organizations.list())

    return Names(names, "org list")


def remote_source_names(client: Client) -> Names:
    """Return a reader of the names of remote sources."""

    async def names() -> list[str]:
        return await first_names(one.name async for one in client.remote_sources.list())

    return Names(names, "remotesource list")


def paths_near(client: Client, path: str) -> Names:
    """Return a reader of the paths of groups and projects below the nearest existing group of a path."""

    async def names() -> list[str]:
        elements = [element for element in path.split("/") if element]
        for length in range(len(elements) - 1, 1, -1):
            above = "/".join(elements[:length])
            try:
                groups = await client.project_groups.groups(above)
                projects = await client.project_groups.projects(above)
            except ClientError as error:
                if error.kind != "not-exist":
                    raise
            else:
                rest = "".join(f"/{element}" for element in elements[length + 1 :])
                paths = [*(group.path for group in groups), *(project.path for project in projects)]
                return [path + rest for path in paths[:MAX_NAMES]]
        return []

    parent = "/".join([element for element in path.split("/") if element][:2]) or "org/NAME"
    return Names(names, f"project list --parent {parent}")


async def first_names(names: AsyncIterator[str]) -> list[str]:
    """Return up to MAX_NAMES names."""
    found: list[str] = []
    async for name in names:
        found.append(name)
        if len(found) == MAX_NAMES:
            break
    return found
