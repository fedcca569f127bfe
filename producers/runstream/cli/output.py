"""What commands print: a table for people, JSON for programs; wide where nobody folds lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from runstream.cli.table import Cell, Column, print_rows
from runstream.cli.terminal_text import printable_json, printable_lines

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


_WORDS = {"notstarted": "not started", "setuperror": "setup error"}


class _Output(Console):
    """A console whose errors of writing are told by the edge, like those of every other way to write."""

    def on_broken_pipe(self) -> None:
        """Raise the error; rich would end the process."""
        raise


def console() -> Console:
    """Where results go."""
    terminal = sys.stdout.isatty()
    return _Output(file=sys.stdout, width=None if terminal else _WIDE, highlight=False, soft_wrap=not terminal)


def shows_colours() -> bool:
    """Return whether stdout is a terminal whose user wants colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "", "dumb")


def say(line: str) -> None:
    """Write a line to stdout, safe for a terminal."""
    sys.stdout.write(f"{printable_lines(line)}\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    """Write a line to stderr, safe for a terminal."""
    sys.stderr.write(f"{printable_lines(line)}\n")
    sys.stderr.flush()


def print_json(value: object) -> None:
    """A value as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(f"{printable_json(text)}\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str | Column], rows: Iterable[Sequence[Cell]], empty: str) -> None:
    """Print rows below a heading; `empty` where there are none."""
    listed = list(rows)
    if listed:
        print_rows(console(), [Column(each) if isinstance(each, str) else each for each in columns], listed)
    else:
        say(empty)


def worded(word: str) -> str:
    """Return a phase, status or result of the API as people read it."""
    return _WORDS.get(word, word)


def styled(word: str) -> Text:
    """A phase, status or result in its colour."""
    return Text(worded(word), style=STYLES.get(word, ""))


def moment(at: datetime | None) -> str:
    """A time to the second, in the user's own zone; `-` for none."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago something was, in its largest unit; `-` for never."""
    if at is None:
        return "-"
    seconds = max(0, int(((now or datetime.now(UTC)) - at).total_seconds()))
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {name} ago"
    return f"{seconds} s ago"


def lasted(begin: datetime | None, end: datetime | None, now: datetime | None = None) -> str:
    """Return how long something took, or has taken until now."""
    if begin is None:
        return "-"
    seconds = max(0.0, ((end or now or datetime.now(UTC)) - begin).total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
