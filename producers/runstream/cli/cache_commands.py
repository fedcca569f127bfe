"""`runstream cache`: list and delete the caches of tasks."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from runstream.api import Cache
from runstream.cli.client_session import with_client
from runstream.cli.connection import program_command
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say, size_text, timestamp
from runstream.client import Client

_COLUMNS: dict[Column, Callable[[Cache], Cell]] = {
    Column("GROUP", wraps=True): lambda one: one.group,
    Column("KEY", wraps=True): lambda one: one.key,
    Column("SIZE"): lambda one: size_text(one.size),
    Column("CREATED", drop=1): lambda one: timestamp(one.created),
}


def list_caches(
    *,
    group: str = "",
    prefix: str = "",
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = 100,
    cursor: str = "",
    output: Output = "table",
) -> int:
    """List the caches of tasks, by group and key.

    Parameters
    ----------
    group
        Only caches of this project, user or cache group, such as /project/web.
    prefix
        Only caches whose key begins with this text.
    cursor
        Continue a list, as its last line says.
    """

    async def work(client: Client) -> None:
        page = await client.caches.page(group, prefix, limit=limit, cursor=cursor)
        if output == "json":
            print_json(page)
            return
        print_items(page.caches, _COLUMNS, "no cache matches" if group or prefix else "there are no caches")
        if page.cursor:
            filters = {"group": group, "prefix": prefix, "limit": str(limit), "cursor": page.cursor}
            words = [word for name, value in filters.items() if value for word in (f"--{name}", shlex.quote(value))]
            say(f"there are more: {program_command()} cache list {' '.join(words)}")

    return with_client(work)


def delete_cache(key: str, /, *, group: str) -> int:
    """Delete a cache.

    Parameters
    ----------
    key
        Its key, as `cache list` shows it.
    group
        Its project, user or cache group, such as /project/web.
    """

    async def work(client: Client) -> None:
        await client.caches.delete(group, key)
        say(f"cache {key} of {group} is deleted")

    return with_client(work)
