"""`runstream run annotate`: notes of people on a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter

from runstream.cli.finding import RunName, find_run, find_task, run_name
from runstream.cli.output import say
from runstream.cli.pairs import pairs
from runstream.cli.running import with_client
from runstream.client import Client
from runstream.errors import BadRequestError

_APPROVERS = "approvers"
"""Not a note: the service keeps under this name who approved the task."""


def annotate_task(
    run: RunName,
    task: str,
    /,
    *notes: str,
    remove: Annotated[list[str] | None, Parameter(negative="")] = None,
    replace: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Attach notes to a task of a run, as NAME=VALUE; notes with other names stay.

    Parameters
    ----------
    task
        The task's name or id.
    notes
        NAME=VALUE; repeatable.
    remove
        Remove the note NAME; repeatable.
    replace
        Remove all earlier notes.
    """
    given = pairs(notes, "annotation")
    if not (given or remove or replace):
        raise BadRequestError("no note was given", code="invalidAnnotations", hint="give NAME=VALUE, or --remove")

    def changed(before: Mapping[str, str]) -> dict[str, str]:
        dropped = before.keys() if replace else {_APPROVERS, *(remove or ())}
        return {name: value for name, value in before.items() if name not in dropped} | given

    async def work(client: Client) -> None:
        found = await find_run(client, run)
        wanted = find_task(found, task)
        noted = await client.runs.change_annotations(found.id, wanted.id, changed)
        names = ", ".join(sorted(noted)) or "none"
        say(f"notes of task {wanted.name} of run {run_name(found)}: {names}")

    return with_client(work)
