"""`runstream storage`: what takes room in the object storage."""

from __future__ import annotations

from collections.abc import Callable

from runstream.api import StoredKind
from runstream.cli.client_session import with_client
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say, size_text, timestamp
from runstream.client import Client

_NAMES = {
    "runs": "ended runs",
    "logs": "logs of steps",
    "indexes": "indexes of logs",
    "archives": "archives of tasks",
    "references": "references of runs",
    "log": "archive of the log",
    "other": "others",
}
_COLUMNS: dict[Column, Callable[[StoredKind], Cell]] = {
    Column("KIND"): lambda one: _NAMES.get(one.kind, one.kind),
    Column("COUNT"): lambda one: f"{one.objects:,}",
    Column("SIZE"): lambda one: "-" if one.bytes is None else size_text(one.bytes),
    Column("DUE"): lambda one: f"{one.due:,}" if one.due else "-",
    Column("NEXT REMOVAL", drop=1): lambda one: timestamp(one.next_removal) if one.next_removal else "-",
    Column("OF", drop=2): lambda one: one.next_group or "-",
}


def status(*, output: Output = "table") -> int:
    """Show how much the object storage holds of each kind, how much retention would remove now, and when the next goes.

    DUE counts runs, runs whose logs or archives go, and caches.

    The figures of a large storage are up to a minute old.
    """

    async def work(client: Client) -> None:
        found = await client.storage()
        if output == "json":
            print_json(found)
            return
        print_items(found.kinds, _COLUMNS, "the storage is empty")
        say(f"{size_text(sum(one.bytes or 0 for one in found.kinds))} in all at {timestamp(found.measured_at)}")

    return with_client(work)
