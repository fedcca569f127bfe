"""`runstream run why`: why a run waits, one line for each thing that it waits for."""

from __future__ import annotations

from collections.abc import Sequence

from runstream.cli.finding import RunName, find_run, is_id, name_of
from runstream.cli.output import Output, print_json, print_table, say, worded
from runstream.cli.running import with_client
from runstream.cli.table import Column
from runstream.client import Client, Why
from runstream.counting import counted

_NAMED = 5
"""Maximum number of tasks named in a line."""


def why(run: RunName, /, *, output: Output = "table") -> int:
    """Say why a run waits: its group, what its tasks depend on, approval, executors, a pause, maintenance.

    Parameters
    ----------
    output
        How to print it.
    """

    async def work(client: Client) -> None:
        found = await client.runs.why(run if is_id(run) else (await find_run(client, run)).id)
        if output == "json":
            print_json(found)
        else:
            _print(found, await name_of(client, found.run))

    return with_client(work)


def _print(found: Why, name: str) -> None:
    say(f"run {name}" + (f" is {_state(found)}" if found.phase else ""))
    rows = [(reason.code, _listed(reason.tasks), reason.message) for reason in found.reasons]
    print_table(
        (Column("REASON"), Column("TASKS", wraps=True), Column("WHY", wraps=True)), rows, "it waits for nothing"
    )
    if found.omitted:
        say(f"and {counted(found.omitted, 'further reason')}")


def _state(found: Why) -> str:
    return worded(found.phase) if found.result == "unknown" else f"{found.phase}, {found.result}"


def _listed(tasks: Sequence[str]) -> str:
    more = len(tasks) - _NAMED
    return (", ".join(tasks[:_NAMED]) + (f" and {more} more" if more > 0 else "")) or "-"
