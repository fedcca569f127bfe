"""A log on a terminal is text and colours alone, for any bytes and any chunks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.cli.log_text import LogText

_SHOWN = re.compile(r"(?:[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\x1b\[[0-9:;]*m)*")
_PIECES = (
    *("text", "é", "\n", "\r", "\t", "\x1b", "[", "]", "0;title", "\x07", "\x1b\\", "\x9b", "\x9d", "\x9c", "31m"),
    *("\x1b[31m", "\x1b[0m", "\x1b[1;38;5;8m", "\x1b[2J", "\x1b(B", "\x1b]52;c;cm0=", "\x1bP", "\f", "\0", "\x18", "8"),
)
_BYTES = st.binary(max_size=40) | st.lists(st.sampled_from(_PIECES)).map(lambda pieces: "".join(pieces).encode())


def shown(chunks: Iterable[bytes], *, colours: bool = True) -> str:
    text = LogText(colours=colours)
    return "".join(map(text.feed, chunks)) + text.end()


@given(_BYTES)
def test_nothing_but_text_and_colours_reaches_a_terminal(log: bytes) -> None:
    assert _SHOWN.fullmatch(shown([log]))
    assert "\x1b" not in shown([log], colours=False)


@given(_BYTES, st.lists(st.integers(0, 60)))
def test_where_a_log_is_cut_into_chunks_makes_no_difference(log: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    chunks = [log[begin:end] for begin, end in pairwise(places)]
    assert shown(chunks) == shown([log])


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")) | st.sampled_from("\n\r\t")))
def test_text_without_control_sequences_is_shown_as_it_is(text: str) -> None:
    assert shown([text.encode()]) == text


@given(_BYTES)
def test_a_colour_ends_with_its_line(log: bytes) -> None:
    for line in shown([log]).split("\n"):
        last = line.rpartition("\x1b[")[2]
        assert last is line or last.partition("m")[0].rpartition(";")[2].strip("0") == ""


@pytest.mark.parametrize(
    ("log", "text"),
    [
        ("\x1b[r\x1b[m\x1b(B\x1b[?1003l\x1b[1;1H\x1b[1;24r\x1b[1;1Hafter one\n", "\x1b[0mafter one\n"),
        ("\x1b[?1049h\x1b[2J\x1b[Hafter two\n", "after two\n"),
        ("\x1b]0;a title\x07after three\n\x1b]52;c;cm0gLXJm\x07after four\n", "after three\nafter four\n"),
        ("\x1b[31mred\x1b[0m plain\n", "\x1b[31mred\x1b[0m plain\n"),
        ("page one\fpage two\n", "page one\npage two\n"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\ text", "link text"),
        ("\x1bP1$q\x1b\\\x1b_x\x1b\\\x1b^x\x9cafter\x07\x00\x08", "after"),
        ("a title that never ends: \x1b]0;title\nnext", "a title that never ends: \nnext"),
        ("\x1b[>4;1m\x1b[?4m\x1b[1 mkeyboard", "keyboard"),
        ("\x1b[5;8;31mneither blinks nor hides", "\x1b[31mneither blinks nor hides\x1b[0m"),
        ("\x1b[38;5;8;48;2;1;2;3m8", "\x1b[38;5;8;48;2;1;2;3m8\x1b[0m"),
        ("10%\x1b[1G20%\x1b[G\x1b[K30%", "10%\r20%\r30%"),
        ("\x1b[31\nred?", "\nred?"),
    ],
)
def test_sequences_that_steer_are_left_out(log: str, text: str) -> None:
    assert shown([log.encode()]) == text
    assert shown(bytes([byte]) for byte in log.encode()) == text


def test_raw_bytes_of_eight_bit_controls_are_no_controls() -> None:
    assert shown([b"\x9b31mtext\xff"]) == "\ufffd31mtext\ufffd"
