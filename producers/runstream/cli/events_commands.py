"""`runstream events`: follow the log."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.finding import find_run
from runstream.cli.output import Output, say
from runstream.client import Client, Commit

_ACTOR = 18
"""Characters of an actor that are shown."""


def tail_events(
    *, begin: Annotated[str, Parameter(name="--from")] = "", run: str = "", output: Output = "table"
) -> int:
    """Print every commit of the log, until Ctrl-C.

    Parameters
    ----------
    begin
        Where to start: start, end, a time with its zone, or a position such as 1:812,40,0,97. Default: end; with
        --run: start.
    run
        Only this run and its tasks: PROJECT/NUMBER, an id, or `latest`.
    """

    async def work(client: Client) -> None:
        run_id = (await find_run(client, run)).id if run else ""
        async for commit in client.events.tail(begin, run=run_id):
            say(msgspec.json.encode(commit).decode() if output == "json" else _line(commit))

    return with_client(work, reads_on=True)


def _line(commit: Commit) -> str:
    at = commit.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    events = ", ".join(event.type for event in commit.events)
    actor = commit.actor if len(commit.actor) <= _ACTOR else f"{commit.actor[: _ACTOR - 1]}…"
    return f"{at}  {commit.position:<12} {commit.aggregate:<41} v{commit.version:<3} {actor:<{_ACTOR}} {events}"
