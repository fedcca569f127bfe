"""`runstream run flaky`: the tasks that failed, and then passed with the same commit and run config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.output import Cell, Column, Output, ago, print_items, print_json, say
from runstream.client import Client, FlakyTask
from runstream.limits import require_group

_COLUMNS: dict[Column, Callable[[FlakyTask], Cell]] = {
    Column("TASK", wraps=True): lambda one: one.task,
    Column("RUN", wraps=True): lambda one: one.name,
    Column("PROJECT", drop=1, wraps=True): lambda one: one.group,
    Column("TIMES"): lambda one: str(one.count),
    Column("LAST FAILED"): lambda one: f"{one.group}/{one.latest[0].failed.counter}",
    Column("THEN PASSED"): lambda one: f"{one.group}/{one.latest[0].passed.counter}",
    Column("WHEN", drop=2): lambda one: ago(one.latest[0].end_time) if one.latest[0].end_time is not None else "",
}


def list_flaky(*, group: Annotated[list[str] | None, Parameter(negative="")] = None, output: Output = "table") -> int:
    """List the tasks that failed, and then passed with the same commit and run config: in a later attempt or run.

    Parameters
    ----------
    group
        Only this group and those below it; repeatable. Default: all runs that you may see.
    """
    groups = [require_group(one) for one in group or ()]

    async def work(client: Client) -> None:
        found = await client.runs.flaky(groups)
        if output == "json":
            print_json(found)
            return
        print_items(found.tasks, _COLUMNS, "no task is flaky")
        if found.more:
            say(f"the last {found.failures} failures were looked at")

    return with_client(work)
