"""What commands print: a table for people, JSON for programs; wide where nobody folds lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

Output = Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])]
_WIDE = 240

STYLES = {
    "success": "green",
    "failed": "bold red",
    "setuperror": "bold red",
    "stopped": "yellow",
    "cancelled": "yellow",
    "skipped": "dim",
    "running": "cyan",
    "queued": "blue",
    "lost": "red",
    "offline": "red",
    "suspect": "yellow",
    "full": "yellow",
    "draining": "yellow",
    "drained": "yellow",
    "ready": "green",
}


def console() -> Console:
    """Where results go."""
    terminal = sys.stdout.isatty()
    return Console(file=sys.stdout, width=None if terminal else _WIDE, highlight=False, soft_wrap=not terminal)


def say(line: str) -> None:
    """A line on stdout, as it is."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    """A line on stderr, which is no result."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def print_json(value: object) -> None:
    """A value as indented JSON."""
    say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], empty: str) -> None:
    """Rows below a heading; `empty` is said where there are none."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        console().print(table, crop=False)
    else:
        say(empty)


def styled(word: str) -> Text:
    """A phase, status or result in its colour."""
    return Text(word, style=STYLES.get(word, ""))


def moment(at: datetime | None) -> str:
    """A time to the second, in the user's own zone; `-` for none."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def lasted(begin: datetime | None, end: datetime | None, now: datetime | None = None) -> str:
    """How long something took, or has taken until now."""
    if begin is None:
        return "-"
    seconds = ((end or now or datetime.now(UTC)) - begin).total_seconds()
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
