"""Where the last lines of a log begin."""

from __future__ import annotations

import asyncio
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.objects.port import CHUNK_BYTES
from runstream.steplogs import reader
from runstream.steplogs.reader import stored_tail, tail_begin

TEXTS = st.text("ab\n", max_size=60).map(str.encode)


class Stored:
    """A stored log, and how many bytes of it were read."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.taken = 0

    @property
    def size(self) -> int:
        return len(self._text)

    async def read(self, offset: int, size: int) -> bytes:
        self.taken += size
        return self._text[offset : offset + size]

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


@given(TEXTS, st.integers(1, 8))
def test_a_tail_has_the_last_lines(text: bytes, lines: int) -> None:
    expected = b"".join(text.splitlines(keepends=True)[-lines:])
    assert text[tail_begin(text, lines) or 0 :] == expected


@given(TEXTS, st.integers(1, 8), st.integers(1, 20))
def test_a_stored_log_is_read_from_its_end(text: bytes, lines: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "CHUNK_BYTES", chunk)
        assert text[asyncio.run(stored_tail(Stored(text), lines)) :] == b"".join(
            text.splitlines(keepends=True)[-lines:]
        )


async def test_a_tail_of_a_large_log_reads_little() -> None:
    stored = Stored(b"line\n" * 1_000_000)
    assert await stored_tail(stored, 10) == 4_999_950
    assert stored.taken == CHUNK_BYTES
    stored = Stored(b"x" * 3_000_000)
    assert await stored_tail(stored, 1) == 3_000_000 - reader.MAX_TAIL_BYTES
    assert stored.taken == reader.MAX_TAIL_BYTES
