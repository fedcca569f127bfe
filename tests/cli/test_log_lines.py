"""Chunks of a log become lines: bounded, and as a terminal would show them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.cli.log_text import SafeLines

_PIECES = ("text ", "é", "\n", "\r", "\x1b[31m", "\x1b[0m", "\x1b[K", "x" * 150, "y" * 299)
_LOGS = st.lists(st.sampled_from(_PIECES)).map(lambda pieces: "".join(pieces).encode())


def lines_of(chunks: Sequence[bytes], line_chars: int = 300) -> list[str]:
    lines = SafeLines(line_chars=line_chars)
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.end()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ((), []),
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"on", b"e\ntw", b"o"), ["one", "two"]),
        ((b"\xc3", b"\xa9\n"), ["é"]),
        ((b"\xff\n\xc3",), ["\ufffd", "\ufffd"]),
        ((b"10%\r20%\r100%\r\n",), ["100%"]),
        ((b"10%\r20%\r\x1b[K\x1b[0m\r",), ["20%"]),
        ((b"\n\n",), ["", ""]),
        ((b"hello\r\n",), ["hello"]),
        ((b"Continue? ",), ["Continue? "]),
        ((b"\x1b[31mred", b" still\n"), ["\x1b[31mred still\x1b[0m"]),
        ((b"a\x1b[31mb\rc\n",), ["c\x1b[0m"]),
    ],
)
def test_lines(chunks: tuple[bytes, ...], lines: list[str]) -> None:
    assert lines_of(chunks) == lines


def test_a_line_that_has_not_ended_can_be_seen_as_it_is_now() -> None:
    lines = SafeLines()
    seen = [(lines.feed(chunk), lines.unfinished) for chunk in (b"Conti", b"nue? ", b"y\n", b"\r10%", b"\r20", b"%\r")]
    assert seen == [([], "Conti"), ([], "Continue? "), (["Continue? y"], ""), ([], "10%"), ([], "20"), ([], "20%")]
    assert lines.end() == ["20%"]


@given(_LOGS, st.lists(st.integers(0, 2000)))
def test_where_a_log_is_cut_into_chunks_makes_no_difference(log: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    chunks = [log[begin:end] for begin, end in pairwise(places)]
    assert lines_of(chunks) == lines_of([log])


@given(_LOGS)
def test_a_long_line_goes_on_in_the_next_and_nothing_of_it_is_lost(log: bytes) -> None:
    log = log.replace(b"\r", b"")
    parts = lines_of([log])
    assert all(len(part) <= 300 + len("\x1b[0m") for part in parts)
    assert _plain("".join(parts)) == _plain(log.decode().replace("\n", "").replace("\x1b[K", ""))


def test_what_is_kept_of_a_line_is_bounded() -> None:
    lines = SafeLines()
    shown = sum(len(line) for _ in range(160) for line in lines.feed(b"x" * 100_000))
    assert 16_000_000 - (64 << 10) <= shown <= 16_000_000
    assert shown + len(lines.unfinished) == 16_000_000


def _plain(text: str) -> str:
    return text.replace("\x1b[31m", "").replace("\x1b[0m", "")
