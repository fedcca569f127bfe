"""A table fits its terminal without cutting the values that users copy."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from runstream.cli.output import Column, print_rows, render
from runstream.cli.terminal_text import printable, printable_json, printable_lines

ID = "6371376a-53bf-4553-ba79-5bce7a3c0f11"
COLUMNS = (
    Column("RUN"),
    Column("NAME", wraps=True),
    Column("STATE"),
    Column("CREATED", drop=1),
    Column("GROUP", drop=2, wraps=True),
    Column("ID", drop=3),
)
ROWS = [
    ("/project/own/5", "a name of quite some words that goes on and on", "running", "5 min ago", "branch/main", ID),
    ("/project/own/4", "ci", "failed", "3 h ago", "branch/feature/with-a-long-name", ID),
]


def plain(width: int | None) -> list[str]:
    return [line.plain for line in render(COLUMNS, ROWS, width)]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_it_fits_and_cuts_no_name_and_no_state(width: int) -> None:
    lines = plain(width)
    assert all(cell_len(line) <= width for line in lines)
    text = "\n".join(lines)
    for row in ROWS:
        assert row[0] in text
        assert row[2] in text


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_printed_fits_the_terminal_and_is_whole_in_a_file(terminal: bool) -> None:
    out = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None, soft_wrap=not terminal)
    with out.capture() as printed:
        print_rows(out, COLUMNS, ROWS)
    assert printed.get().splitlines() == plain(80 if terminal else None)


def test_the_least_important_columns_go_first() -> None:
    assert plain(None)[0].split() == ["RUN", "NAME", "STATE", "CREATED", "GROUP", "ID"]
    assert plain(80)[0].split() == ["RUN", "NAME", "STATE", "CREATED", "GROUP"]
    assert plain(50)[0].split() == ["RUN", "NAME", "STATE"]
    assert all(line == line.rstrip() for line in plain(None))


def test_rows_become_lines_where_nothing_else_fits() -> None:
    lines = [line.plain for line in render((Column("ID"), Column("STATE")), [(ID, "running"), (ID, "lost")], 40)]
    assert lines == [f"ID     {ID}"[:43], "STATE  running", "", f"ID     {ID}"[:43], "STATE  lost"]


@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), min_size=1, max_size=5), st.integers(40, 120))
def test_whatever_texts_hold_it_fits_and_is_harmless(rows: list[tuple[str, str]], width: int) -> None:
    lines = render((Column("A", wraps=True), Column("B", wraps=True)), rows, width)
    assert all(line.cell_len <= width for line in lines)
    assert all(printable(line.plain) == line.plain for line in lines)


def test_control_and_direction_characters_are_escaped() -> None:
    hostile = "a\x1b[31mb\nc\x9bd\u202ee\x00\ud800"
    assert printable(hostile) == r"a\x1b[31mb\nc\x9bd\u202ee\x00\ud800"
    assert printable_lines("one\n\ttwo\r") == "one\n\ttwo\\r"
    assert printable_json('"\u202e\x9b"') == r'"\u202e\u009b"'
    (line,) = render((Column(""),), [(Text("x\x1b]0;t", "red"),)], None)
    assert line.plain == r"x\x1b]0;t"


@given(st.text())
def test_printable_text_is_one_line_and_stays_as_it_is_the_second_time(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
