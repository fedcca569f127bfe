"""The index beside a stored log, and the times that lines get from it: pure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.codec import zstd
from runstream.log_lines import MAX_BYTES, MAX_LINE_BYTES, LinePage, line_count, line_page
from runstream.log_times import StampedLines, TimedBytes
from runstream.steplogs.live import LiveLog, LiveLogs
from runstream.steplogs.log_index import FLUSH_MS, LINES, MAGIC, LogIndex, LogIndexer, decode, encode

NOW = 1_764_412_000_000
CHUNKS = st.lists(
    st.tuples(
        st.one_of(st.binary(max_size=40), st.integers(0, 2500).map(lambda count: b"x\n" * count)),
        st.integers(-1000, 3 * FLUSH_MS),
    ),
    max_size=12,
)


def indexed(chunks: Sequence[tuple[bytes, int]], max_entries: int = 1 << 16) -> tuple[bytes, list[int], LogIndex]:
    """The log, the time of each byte as the indexer gave it, and the index as it is read again."""
    indexer, now, times = LogIndexer(max_entries), NOW, list[int]()
    for chunk, later in chunks:
        now += later
        times += [indexer.add(chunk, now)] * len(chunk)
    return b"".join(chunk for chunk, _ in chunks), times, decode(encode(indexer.index()))


def time_of(index: LogIndex, at: int) -> int | None:
    ((_, time),) = TimedBytes(at, b"x", index.times_of(at, at + 1)).spans()
    return time


@given(CHUNKS)
def test_every_thousandth_line_begins_where_the_index_says(chunks: list[tuple[bytes, int]]) -> None:
    text, _, index = indexed(chunks)
    begins = [0, *(at + 1 for at, byte in enumerate(text) if byte == 10)]
    assert (index.size, index.lines, index.stride) == (len(text), text.count(b"\n"), LINES)
    assert list(index.offsets) == begins[LINES::LINES]
    for line in (0, 1, LINES - 1, LINES, index.lines, index.lines + LINES):
        number, offset = index.near(line)
        assert begins[number] == offset
        assert number <= line
        assert line - number < LINES or line > index.lines


@given(CHUNKS, st.integers(0, 1 << 14), st.integers(1, 1 << 14))
def test_a_byte_has_the_time_of_its_flush(chunks: list[tuple[bytes, int]], begin: int, length: int) -> None:
    text, times, index = indexed(chunks)
    now = NOW
    at = 0
    for chunk, later in chunks:
        now += later
        if chunk:
            assert 0 <= now - times[at] < FLUSH_MS
        at += len(chunk)
    part = text[begin : begin + length]
    if part:
        spans = TimedBytes(begin, part, index.times_of(begin, begin + len(part))).spans()
        assert [(data, time) for span, time in spans for data in span] == list(
            zip(part, times[begin : begin + length], strict=True)
        )


def test_an_index_is_bounded_however_long_the_log() -> None:
    numbers = random.Random(1)  # noqa: S311  the same each time
    chunks = [(b"line\n" * numbers.randrange(3 * LINES), 1 + numbers.randrange(200)) for _ in range(2000)]
    text, times, index = indexed(chunks, max_entries=64)
    assert len(index.offsets) < 64
    assert 32 <= len(index.flushes) <= 64
    assert index.stride % LINES == 0
    assert [text[:offset].count(b"\n") for offset in index.offsets[:3]] == [index.stride * n for n in (1, 2, 3)]
    at = len(text) // 2
    found = time_of(index, at)
    assert found is not None
    assert 0 <= times[at] - found < FLUSH_MS << 12  # an earlier time, at a larger interval


@given(CHUNKS, st.data())
def test_a_damaged_index_is_an_error_or_an_index(chunks: list[tuple[bytes, int]], data: st.DataObject) -> None:
    stored = bytearray(encode(LogIndexer().index()) if not chunks else b"")
    if chunks:
        indexer = LogIndexer()
        for chunk, later in chunks:
            indexer.add(chunk, NOW + later)
        stored = bytearray(encode(indexer.index()))
    plain = bytearray(zstd.decompress(stored[len(MAGIC) :]))
    at = data.draw(st.integers(0, len(plain) - 1))
    plain[at] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (MAGIC + zstd.compress(plain), bytes(stored[:-1]), bytes(stored) + b"x", b"", bytes(plain)):
        try:
            index = decode(damaged)
        except ValueError:
            continue
        assert all(0 <= offset <= index.size for offset in (*index.offsets, *index.flushes))
        StampedLines().feed(TimedBytes(0, b"a\nb", index.times_of(0, 3)))


def test_an_index_that_would_unpack_to_gigabytes_is_refused() -> None:
    with pytest.raises(ValueError, match="cut short"):
        decode(MAGIC + zstd.compress(bytes(64 << 20)))


@given(st.text(alphabet="ab\r\n", max_size=30), st.lists(st.integers(0, 30), max_size=4), st.data())
def test_each_line_begins_with_the_time_of_its_first_byte(text: str, cuts: list[int], data: st.DataObject) -> None:
    log = text.encode()
    marks = sorted({at: (at, NOW + at) for at in data.draw(st.lists(st.integers(0, 30), max_size=5))}.values())
    lines = StampedLines()
    edges = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    found = b"".join(lines.feed(TimedBytes(begin, log[begin:end], marks)) for begin, end in pairwise(edges))
    at, expected = 0, b""
    for line in log.split(b"\n"):
        if at == len(log):
            break
        times = [time for offset, time in marks if offset <= at]
        expected += (f"{datetime_of(times[-1])} ".encode() if times else b"- ") + line + b"\n"
        at += len(line) + 1
    assert found == expected[: len(expected) - (not log.endswith(b"\n"))]


def datetime_of(milliseconds: int) -> str:
    text = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class Untouched(LiveLogs):
    """Publishes nothing."""

    def __init__(self) -> None: ...

    def touch(self, live: LiveLog) -> None: ...


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 3), st.booleans()), max_size=12))
def test_messages_of_a_live_log_have_the_times_of_their_bytes(writes: list[tuple[int, int, bool]]) -> None:
    live = LiveLog(Untouched(), "task", "subject")
    times: list[int] = []
    now = NOW

    def check() -> None:
        while (message := live.take()) is not None:
            chunk, headers = message
            begin = int(headers["Offset"])
            marks = [(int(at), int(time)) for at, time in (one.split(":") for one in headers["Times"].split(","))]
            spans = TimedBytes(begin, chunk, marks).spans()
            assert [time for data, time in spans for _ in data] == times[begin : begin + len(chunk)]

    for size, later, published in writes:
        now += later
        live.write(bytes(size), now)
        times += [now] * size
        if published:
            check()
    check()


@given(CHUNKS, st.integers(-9000, 9000), st.integers(1, 3000), st.booleans(), st.integers(1, 5000))
def test_lines_are_found_by_number_with_the_index_and_without(
    chunks: list[tuple[bytes, int]], first: int, count: int, known: bool, cut: int
) -> None:
    text, times, index = indexed(chunks)
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()

    async def parts(begin: int) -> AsyncIterator[TimedBytes]:
        for at in range(begin, len(text), cut):
            yield TimedBytes(at, text[at : at + cut], index.times_of(at, at + cut) if known else ())

    async def found() -> LinePage:
        assert await line_count(parts(0)) == len(lines)
        begin = max(len(lines) + first, 0) if first < 0 else first
        number, offset = index.near(begin) if known else (0, 0)
        return await line_page(parts(offset), number, begin, count)

    page = asyncio.run(found())
    wanted = slice(first, None) if first < -len(lines) or first >= 0 else slice(first + len(lines), None)
    numbers = list(range(len(lines)))[wanted][:count]
    assert [(line.number, line.data) for line in page.lines] == [(number, lines[number]) for number in numbers]
    assert page.more == (len(lines) - (page.first + len(numbers)) > 0)
    for line in page.lines:
        assert text[: line.offset].count(b"\n") == line.number
        assert line.time == (times[line.offset] if known else None)


def test_a_page_of_lines_is_bounded() -> None:
    async def parts(*texts: bytes) -> AsyncIterator[TimedBytes]:
        offset = 0
        for text in texts:
            yield TimedBytes(offset, text)
            offset += len(text)

    long = b"x" * (3 * MAX_LINE_BYTES)
    page = asyncio.run(
        line_page(parts(long, long, b"\nshort\n", *[b"y" * (MAX_LINE_BYTES - 1) + b"\n"] * 40), 0, 0, 99)
    )
    assert [(len(line.data), line.cut) for line in page.lines[:3]] == [
        (MAX_LINE_BYTES, True),
        (5, False),
        (MAX_LINE_BYTES - 1, False),
    ]
    assert page.more
    assert MAX_BYTES - MAX_LINE_BYTES < sum(len(line.data) for line in page.lines) <= MAX_BYTES
