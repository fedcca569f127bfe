"""Durations and amounts of bytes: what is written, what it is, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.runconfig.amounts import MAX_NANOSECONDS, format_duration, parse_duration, parse_quantity

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0), ("-0", 0), ("0s", 0), ("1ns", 1), ("1us", 1000), ("1µs", 1000), ("1μs", 1000), ("300ms", 300_000_000),
        ("1.5s", 3 * SECOND // 2), (".5s", SECOND // 2), ("1.s", SECOND), ("1h2m3.5s", 3723 * SECOND + SECOND // 2),
        ("+5s", 5 * SECOND), ("-5s", -5 * SECOND), ("1h1h", 7200 * SECOND), ("0.9ns", 0),
        ("9223372036854775807ns", MAX_NANOSECONDS),
    ],
)  # fmt: skip
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    ["", "-", "+", "1", "s", ".s", "1 s", " 1s", "1s ", "1d", "1S", "1h-2m", "--1s", "1e3s", "9223372036854775808ns",
     "1" * 99 + "h", "1" * 10_000 + "s", "\u0661s"],
)  # fmt: skip
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0s"), (1, "1ns"), (1_100, "1.1µs"), (2_200_000, "2.2ms"), (3_300_000_000, "3.3s"), (245 * SECOND, "4m5s"),
     (3600 * SECOND, "1h0m0s"), (5_445 * SECOND + 1_000_000, "1h30m45.001s"), (-10 * SECOND, "-10s")],
)  # fmt: skip
def test_how_durations_are_written(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text


@given(st.integers(-MAX_NANOSECONDS, MAX_NANOSECONDS))
def test_what_was_written_reads_back(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0", 0), ("10", 10), ("1Ki", 1024), ("1.5Gi", 3 << 29), ("10M", 10_000_000), ("2k", 2000), ("1e3", 1000),
     ("1E", 10**18), ("100m", 1), ("+1", 1), ("-0", 0), (".5Ki", 512), ("1.", 1), ("7Ei", 7 << 60)],
)  # fmt: skip
def test_amounts(text: str, amount: int) -> None:
    assert parse_quantity(text) == amount


@pytest.mark.parametrize("text", ["", "Gi", "1GiB", "1 Gi", "1KI", "-1", "8Ei", "1e999", "9" * 200, "0x10", "1e99999"])
def test_what_is_not_an_amount(text: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        parse_quantity(text)
