"""A table that fits its terminal: no cell that could be copied is ever cut.

Where the columns are too wide, free texts wrap, and then columns are left out, the least important first; where even
that is not enough, each row becomes a few lines. Without a terminal everything is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from runstream.cli.terminal_text import printable

_GAP = 2
_NARROWEST = 16
"""Cells that a text that wraps keeps at least."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and what may become of it on a narrow terminal."""

    title: str
    drop: int = 0
    """Left out when space is short: those with the highest number first; 0 for never."""
    wraps: bool = False
    """True for free text, which may take several lines."""


Cell = str | Text


def render(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None) -> list[Text]:
    """Return the lines of a table in at most `width` cells; None for as many as it needs."""
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
    """Print a table as wide as the console's terminal, or in full where it has none."""
    for line in render(columns, rows, out.width if out.is_terminal else None):
        out.print(line, soft_wrap=True)


def _text(cell: Cell) -> Text:
    """Return a cell in one line, safe for a terminal."""
    if isinstance(cell, str):
        return Text(printable(cell))
    clean = printable(cell.plain)
    return cell if clean == cell.plain else Text(clean, style=cell.style)


def _total(shown: Sequence[int], widths: Sequence[int]) -> int:
    return sum(widths[index] for index in shown) + _GAP * (len(shown) - 1)


def _narrowed(columns: Sequence[Column], shown: Sequence[int], widths: Sequence[int], width: int) -> list[int] | None:
    """Return widths that fit when texts wrap; None where they cannot."""
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
    """Break a text at its spaces, and within words that are longer than a line."""
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
    """Return each row as lines of title and value; a value that is too long goes on in the next line."""
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
