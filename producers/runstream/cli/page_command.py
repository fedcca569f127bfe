"""`runstream page`: a link that opens the page, logged in."""

from __future__ import annotations

import sys
from typing import Annotated
from urllib.parse import quote

import msgspec
from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.finding import find_run
from runstream.cli.output import Output, print_json, say, timestamp, warn
from runstream.client import Client


def print_page_link(
    run: Annotated[
        str, Parameter(help="Show this run: PROJECT/NUMBER, an id, or `latest`. Default: the list of runs.")
    ] = "",
    /,
    *,
    output: Output = "table",
) -> int:
    """Print a link that opens the page in a browser, logged in. It works once."""

    async def work(client: Client) -> None:
        path = f"/ui/runs/{(await find_run(client, run)).id}" if run else ""
        link = await client.users.login_link("")
        link = msgspec.structs.replace(link, url=leading_to(link.url, path))
        if output == "json":
            print_json(link)
        else:
            say(link.url)
            if sys.stdout.isatty():
                warn(f"it works once, until {timestamp(link.expires_at)}")

    return with_client(work)


def leading_to(link: str, path: str) -> str:
    """Return a login link that shows a path of the page."""
    page, _, secret = link.partition("#")
    return f"{page}?next={quote(path, safe='')}#{secret}" if path else link
