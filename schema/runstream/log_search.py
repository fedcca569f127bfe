"""Lines of a step's log that match an expression.

A search reads blocks of whole lines with one RE2 expression, so its time grows with the log and not with the number of
its lines.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from runstream.expressions import expression_fault
from runstream.log_lines import MAX_BYTES, MAX_LINE_BYTES, NumberedLine, SkippedLines
from runstream.log_times import TimedBytes

MAX_MATCHES = 1000
"""Lines in one answer."""
MAX_SEARCHED_BYTES = 64 << 20
"""Of a log, for one answer."""
MAX_QUERY_BYTES = 1000
_MAX_MEMORY = 4 << 20
_WHOLE_TEXT = re.compile(r"(?<!\\)(?:\\\\)*\\[Az]|\(\?[a-zA-Z]*-[a-zA-Z]*m")
"""What would make an expression depend on where a block begins."""


def compile_query(query: str, *, regex: bool, ignore_case: bool) -> Any:
    """Return the RE2 expression for a text, or for an expression of one line in which ^ and $ are its begin and end.

    Raises ValueError with the reason for one that RE2 does not take.
    """
    import re2  # type: ignore[import-untyped]  # not at the top: few processes search

    if regex and _WHOLE_TEXT.search(query):
        raise ValueError(r"^ and $ stand for the begin and end of a line; \A, \z and (?-m) are not supported")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    options.never_nl = True
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(f"(?m){query if regex else re2.escape(query)}", options)
    except re2.error as error:
        raise ValueError(expression_fault(error, query, added="(?m)")) from error


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Matching lines of a log."""

    lines: list[NumberedLine]
    next: int | None
    """Number of the first line that is not searched; None at the end of the log."""


class LineSearch:
    """A search through the parts of a log, the first of which begins with the line `number`."""

    def __init__(self, query: Any, number: int = 0) -> None:
        self._query = query
        self.number = number
        """The number of the first line that is not searched yet."""
        self._begun: tuple[int, int | None] | None = None
        """Offset and time of the unfinished line."""
        self._data = bytearray()
        """Its beginning: one byte more than is searched, so that $ does not match where a long line is cut."""

    def feed(self, part: TimedBytes, most: int) -> list[NumberedLine]:
        """Return the matching lines that end in this part; with `most` of them, the rest of the part is ignored.

        Of a line longer than MAX_LINE_BYTES, the beginning is searched.
        """
        found: list[NumberedLine] = []
        begin, end = 0, part.data.rfind(b"\n") + 1
        if self._begun is not None and end:
            begin = part.data.find(b"\n") + 1
            self._add(part, 0, begin - 1)
            found += self.end()
        while begin < end and len(found) < most:
            match = self._query.search(part.data, begin, end)
            start = end if match is None else part.data.rfind(b"\n", begin, match.start()) + 1 or begin
            self.number += part.data.count(b"\n", begin, start)
            if start == end:
                break
            begin = part.data.find(b"\n", start) + 1
            self._add(part, start, begin - 1)
            found += self.end()
        if end < len(part.data) and len(found) < most:
            self._add(part, end, len(part.data))
        return found

    def end(self) -> list[NumberedLine]:
        """Return the unfinished line if it matches."""
        if self._begun is None:
            return []
        (offset, time), data = self._begun, bytes(self._data)
        self._begun = None
        self._data.clear()
        self.number += 1
        if self._query.search(data, 0, min(len(data), MAX_LINE_BYTES)) is None:
            return []
        return [NumberedLine(self.number - 1, offset, time, data[:MAX_LINE_BYTES], len(data) > MAX_LINE_BYTES)]

    def _add(self, part: TimedBytes, begin: int, end: int) -> None:
        if self._begun is None:
            self._begun = (part.offset + begin, part.time(part.offset + begin))
        self._data += part.data[begin : min(end, begin + MAX_LINE_BYTES + 1 - len(self._data))]


async def search_page(parts: AsyncIterator[TimedBytes], number: int, first: int, count: int, query: Any) -> SearchPage:
    """Return up to `count` matching lines from the line `first` on, of a log whose parts begin with the line `number`.

    Fewer where the log ends, where they are larger than MAX_BYTES, or after MAX_SEARCHED_BYTES.
    """
    size, searched, skipped = 0, 0, SkippedLines(first - number)
    search = LineSearch(query, first)
    lines: list[NumberedLine] = []
    async for part in parts:
        if (rest := skipped.rest(part)) is None:
            continue
        for line in await asyncio.to_thread(search.feed, rest, count - len(lines)):
            size += len(line.data)
            if lines and size > MAX_BYTES:
                return SearchPage(lines, line.number)
            lines.append(line)
        searched += len(rest.data)
        if len(lines) == count or (searched >= MAX_SEARCHED_BYTES and search.number > first):
            return SearchPage(lines, search.number)
    return SearchPage([*lines, *search.end()], None)
