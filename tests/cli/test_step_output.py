"""Chunks of bytes become lines, whatever they are cut at."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runstream.cli.step_output import lines_of


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ((), []),
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"on", b"e\ntw", b"o"), ["one", "two"]),
        ((b"\xc3", b"\xa9\n"), ["é"]),
        ((b"\xff\n\xc3",), ["\ufffd", "\ufffd"]),
        ((b"10%\r20%\r100%\r\n",), ["100%"]),
        ((b"\n\n",), ["", ""]),
    ],
)
async def test_lines(chunks: tuple[bytes, ...], lines: list[str]) -> None:
    assert [line async for batch in lines_of(_chunks(*chunks)) for line in batch] == lines


async def test_many_lines_come_in_bounded_batches() -> None:
    batches = [batch async for batch in lines_of(_chunks(b"x\n" * 1000))]
    assert max(map(len, batches)) <= 200
    assert sum(map(len, batches)) == 1000
