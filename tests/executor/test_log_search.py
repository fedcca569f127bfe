"""Lines of a log that match an expression, and those since a time: pure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import re2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from runstream.log_lines import MAX_BYTES, MAX_LINE_BYTES
from runstream.log_search import SearchPage, compile_query, search_page
from runstream.log_times import TimedBytes, offset_since

LOGS = st.text(alphabet="abA.\n", max_size=60).map(str.encode)
EXPRESSIONS = ("a", "^a", "b$", "^$", "a.b", "[^b]", r"\s", "a|^b$", "x*", "a\nb", ".*", r"\.$", "(?i)aa", "(?s)a.b")


async def parts_of(log: bytes, cut: int, begin: int = 0) -> AsyncIterator[TimedBytes]:
    """The log in parts; each byte has the time that is its offset."""
    for at in range(begin, len(log), cut):
        data = log[at : at + cut]
        yield TimedBytes(at, data, [(byte, byte) for byte in range(at, at + len(data))] if len(log) < 1000 else ())


def lines_of(log: bytes) -> list[bytes]:
    lines = log.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def found_in(log: bytes, cut: int, query: str, first: int = 0, count: int = 1000, **how: bool) -> SearchPage:
    expression = compile_query(query, **{"regex": True, "ignore_case": False, **how})
    return asyncio.run(search_page(parts_of(log, cut), 0, first, count, expression))


@given(LOGS, st.integers(1, 20), st.sampled_from(EXPRESSIONS), st.integers(0, 12), st.integers(1, 5))
def test_each_line_is_searched_by_itself(log: bytes, cut: int, query: str, first: int, count: int) -> None:
    lines = lines_of(log)
    single = re2.compile(query)
    wanted = [number for number, line in enumerate(lines) if number >= first and single.search(line) is not None]
    page = found_in(log, cut, query, first, count)
    assert [line.number for line in page.lines] == wanted[:count]
    for line in page.lines:
        assert (line.data, log[: line.offset].count(b"\n")) == (lines[line.number], line.number)
        assert (line.time, line.cut) == (line.offset, False)
    seen = [line.number for line in page.lines]
    while page.next is not None:
        page = found_in(log, cut, query, page.next, count)
        seen += [line.number for line in page.lines]
    assert seen == wanted


@given(LOGS, st.integers(1, 20))
def test_a_text_is_not_an_expression_and_case_can_be_ignored(log: bytes, cut: int) -> None:
    for query in ("a.", ".", "Aa"):
        plain = found_in(log, cut, query, regex=False)
        assert [line.data for line in plain.lines] == [line for line in lines_of(log) if query.encode() in line]
        ignoring = found_in(log, cut, query, regex=False, ignore_case=True)
        lower = query.lower().encode()
        assert [line.data for line in ignoring.lines] == [line for line in lines_of(log) if lower in line.lower()]


@pytest.mark.parametrize("cut", [7_001, MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES])
def test_the_beginning_of_a_long_line_is_searched_wherever_it_is_cut_into_parts(cut: int) -> None:
    long = b"a" * MAX_LINE_BYTES + b"needle\nb\n"
    assert [line.number for line in found_in(long, cut, "needle|a$|b").lines] == [1]
    (line,) = found_in(b"b\n" + long, cut, "^a").lines
    assert (line.number, line.data, line.cut) == (1, long[:MAX_LINE_BYTES], True)


def test_a_page_of_matches_is_bounded() -> None:
    log = (b"x" * (MAX_LINE_BYTES - 1) + b"\n") * 40
    page = found_in(log, 1 << 20, "x")
    assert MAX_BYTES - MAX_LINE_BYTES < sum(len(line.data) for line in page.lines) <= MAX_BYTES
    assert page.next == len(page.lines)


def test_a_page_ends_after_much_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.log_search.MAX_SEARCHED_BYTES", 100)
    page = found_in(b"a line\n" * 40 + b"needle\n", 30, "needle")
    assert (page.lines, page.next) == ([], 17)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("(", "missing \\)"),
        (r"a\z", r"\^ and \$ stand"),
        (r"\\\A", "stand"),
        ("(?i-m)^a", "stand"),
        ("x{2000}", "repeti"),
    ],
)
def test_an_expression_that_cannot_be_searched_for_is_refused_with_the_reason(query: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compile_query(query, regex=True, ignore_case=False)
    assert compile_query(query, regex=False, ignore_case=False).search(f"--{query}--".encode()) is not None


@given(LOGS, st.integers(1, 20), st.integers(0, 70), st.integers(0, 20))
def test_lines_since_a_time_begin_at_a_line(log: bytes, cut: int, time: int, begin: int) -> None:
    begins = [0, *(at + 1 for at, byte in enumerate(log) if byte == 10)]
    wanted = next((at for at in begins if at >= time and at < len(log)), len(log))
    assert asyncio.run(offset_since(parts_of(log, cut), time)) == wanted
    if begin < min(time, len(log)):  # one byte before the wanted ones is enough
        assert asyncio.run(offset_since(parts_of(log, cut, begin), time)) == wanted


def test_lines_of_unknown_times_are_no_lines_since_a_time() -> None:
    async def parts() -> AsyncIterator[TimedBytes]:
        yield TimedBytes(0, b"old\nnew\n", [(4, 50)])

    assert asyncio.run(offset_since(parts(), 1)) == 4


@pytest.mark.parametrize("regex", ["(", "(" * 1000, "a**", "[z-a]", "x" * 900 + ")", "(?P<n>", "\\q"])
def test_the_fault_of_an_expression_is_short_and_of_what_was_given(regex: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        compile_query(regex, regex=True, ignore_case=False)
    assert "(?m)" not in str(refused.value)
    assert len(str(refused.value)) < 120
