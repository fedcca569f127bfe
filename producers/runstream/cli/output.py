"""Output of commands: tables for people, JSON for programs; colours and times.

A table fits its terminal without cutting a value that could be copied: first free texts wrap, then the least important
columns are dropped, and finally each row becomes a few lines. Without a terminal the whole table is printed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from cyclopts import Parameter
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from runstream.cli.terminal_text import printable, printable_json, printable_lines

Output = Annotated[
    Literal["table", "json"], Parameter(name=["--output", "-o"], help="Text for people, or JSON for programs.")
]
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
_GAP = 2
_NARROWEST = 16
"""Minimum width of a column that wraps, in cells."""
Cell = str | Text
T = TypeVar("T")


class _Output(Console):
    """A console that raises errors of writing, like all other output."""

    def on_broken_pipe(self) -> None:
        """Raise the error, where rich would end the process."""
        raise


def console() -> Console:
    """Return the console for results; wide without a terminal, where no line is folded."""
    terminal = sys.stdout.isatty()
    return _Output(file=sys.stdout, width=None if terminal else _WIDE, highlight=False, soft_wrap=not terminal)


def shows_colours() -> bool:
    """Return whether stdout is a terminal whose user wants colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "", "dumb")


def say(line: str) -> None:
    """Write a line to stdout, safe for a terminal."""
    sys.stdout.write(f"{printable_lines(line)}\n")
    sys.stdout.flush()


def warn(line: str) -> None:
    """Write a line to stderr, safe for a terminal."""
    sys.stderr.write(f"{printable_lines(line)}\n")
    sys.stderr.flush()


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(f"{printable_json(text)}\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str | Column], rows: Iterable[Sequence[Cell]], empty: str) -> None:
    """Print rows below a heading; `empty` where there are none."""
    cells = list(rows)
    if cells:
        print_rows(console(), [Column(each) if isinstance(each, str) else each for each in columns], cells)
    else:
        say(empty)


def print_items(items: Iterable[T], layout: Mapping[Column, Callable[[T], Cell]], empty: str) -> None:
    """Print a row for each item, whose cells the columns' functions make; `empty` where there are none."""
    print_table(tuple(layout), [[cell(item) for cell in layout.values()] for item in items], empty)


def display_word(word: str) -> str:
    """Return a phase, status or result of the API in words for people."""
    return _WORDS.get(word, word)


def styled(word: str) -> Text:
    """Return a phase, status or result in its colour."""
    return Text(display_word(word), style=STYLES.get(word, ""))


def timestamp(at: datetime | None) -> str:
    """Format a time to the second, in the user's zone; `-` for None."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """Format the time since a moment in its largest unit; `-` for None."""
    if at is None:
        return "-"
    seconds = max(0, int(((now or datetime.now(UTC)) - at).total_seconds()))
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {name} ago"
    return f"{seconds} s ago"


def size_text(size: int) -> str:
    """Return an amount of bytes for people, such as `1.5 MiB`."""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, 4)
    return f"{size / (1 << 10 * power):.1f} {'KMGT'[power - 1]}iB"


def duration(begin: datetime | None, end: datetime | None, now: datetime | None = None) -> str:
    """Format a duration, until now without an end; `-` without a beginning."""
    if begin is None:
        return "-"
    seconds = max(0.0, ((end or now or datetime.now(UTC)) - begin).total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and how it gives way on a narrow terminal."""

    title: str
    drop: int = 0
    """Order of dropping when space is short, the highest first; 0 for never."""
    wraps: bool = False
    """True for free text, which may wrap."""


def render(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None) -> list[Text]:
    """Return the lines of a table in at most `width` cells; None for as many as needed."""
    cells = [[_text(cell) for cell in row] for row in rows]
    shown = list(range(len(columns)))
    widths = [
        max([cell_len(column.title), *(row[index].cell_len for row in cells)]) for index, column in enumerate(columns)
    ]
    if width is None:
        return _lines(columns, cells, shown, widths)
    while _total(shown, widths) > width:
        if (narrowed := _narrowed(columns, shown, widths, width)) is not None:
            return _lines(columns, cells, shown, narrowed)
        droppable = [index for index in shown if columns[index].drop]
        if not droppable:
            return _stacked(columns, cells, shown, width)
        shown.remove(max(droppable, key=lambda index: columns[index].drop))
    return _lines(columns, cells, shown, widths)


def print_rows(out: Console, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table as wide as the console's terminal, or in full without one."""
    for line in render(columns, rows, out.width if out.is_terminal else None):
        out.print(line, soft_wrap=True)


def _text(cell: Cell) -> Text:
    """Return a cell as one line, safe for a terminal."""
    if isinstance(cell, str):
        return Text(printable(cell))
    clean = printable(cell.plain)
    return cell if clean == cell.plain else Text(clean, style=cell.style)


def _total(shown: Sequence[int], widths: Sequence[int]) -> int:
    return sum(widths[index] for index in shown) + _GAP * (len(shown) - 1)


def _narrowed(columns: Sequence[Column], shown: Sequence[int], widths: Sequence[int], width: int) -> list[int] | None:
    """Return widths that fit when texts wrap, or None."""
    over = _total(shown, widths) - width
    narrowed = list(widths)
    wrapping = [index for index in shown if columns[index].wraps]
    for index in sorted(wrapping, key=lambda index: -widths[index]):
        given = min(over, max(0, narrowed[index] - max(_NARROWEST, cell_len(columns[index].title))))
        narrowed[index] -= given
        over -= given
    return narrowed if over <= 0 else None


def _lines(
    columns: Sequence[Column], cells: Sequence[Sequence[Text]], shown: Sequence[int], widths: Sequence[int]
) -> list[Text]:
    lines = []
    if any(columns[index].title for index in shown):
        lines.append(_joined([Text(columns[index].title, style="bold") for index in shown], shown, widths))
    for row in cells:
        wrapped = [_wrapped(row[index], widths[index]) for index in shown]
        for number in range(max(map(len, wrapped))):
            parts = [lines_[number] if number < len(lines_) else Text() for lines_ in wrapped]
            lines.append(_joined(parts, shown, widths))
    return lines


def _joined(parts: Sequence[Text], shown: Sequence[int], widths: Sequence[int]) -> Text:
    line = Text()
    for part, index in zip(parts, shown, strict=True):
        line.append_text(part)
        line.append(" " * (widths[index] - part.cell_len + _GAP))
    line.rstrip()
    return line


def _wrapped(text: Text, width: int) -> list[Text]:
    """Wrap a text at its spaces, and within words that are longer than a line."""
    if text.cell_len <= width:
        return [text]
    lines: list[Text] = []
    start = 0
    while start < len(text):
        end = start
        while end < len(text) and text[start : end + 1].cell_len <= width:
            end += 1
        end = max(end, start + 1)
        if end < len(text):
            space = text.plain.rfind(" ", start, end + 1)
            end = space if space > start else end
        line = text[start:end]
        line.rstrip()
        lines.append(line)
        start = end
        while start < len(text) and text.plain[start] == " ":
            start += 1
    return lines


def _stacked(
    columns: Sequence[Column], cells: Sequence[Sequence[Text]], shown: Sequence[int], width: int
) -> list[Text]:
    """Return each row as lines of title and value; a long value continues in the next line."""
    indent = max(cell_len(columns[index].title) for index in shown) + _GAP
    lines = []
    for number, row in enumerate(cells):
        if number:
            lines.append(Text())
        for index in shown:
            line = Text(columns[index].title.ljust(indent), style="bold")
            values = _wrapped(row[index], max(width - indent, 1)) if columns[index].wraps else [row[index]]
            line.append_text(Text(values[0].plain, style=values[0].style or "not bold"))
            lines.append(line)
            lines += [Text(" " * indent).append_text(value) for value in values[1:]]
    return lines
