"""Lines of a log as they are written: what was written over is gone, a line that is not ended yet can be seen.

A line may be of any length, so what is kept of it is bounded: a longer one goes on as another line.
"""

from __future__ import annotations

import re

from runstream.cli.log_text import RESET, LogText

LINE_CHARS = 64 << 10
"""Characters of a line; what is longer goes on in the next line."""
_ENDS = re.compile("[\n\r]")
_COLOUR = re.compile("\x1b\\[[0-9;:]*m")


class LogLines:
    """Turns the chunks of a log into lines that a terminal may show."""

    def __init__(self, *, colours: bool = True, line_chars: int = LINE_CHARS) -> None:
        self._text = LogText(colours=colours)
        self._line_chars = line_chars
        self._written: list[str] = []
        """What was written since the last return to the line's beginning."""
        self._length = 0
        self._before = ""
        """What the line showed before that."""

    @property
    def unfinished(self) -> str:
        """What a terminal would show now of the line that has not ended; colours alone are nothing."""
        written = "".join(self._written)
        if not _COLOUR.sub("", written):
            return self._before
        last = written.rfind("\x1b[")
        return written if last < 0 or written.startswith(RESET, last) else written + RESET

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines that have ended."""
        return self._take(self._text.feed(chunk))

    def end(self) -> list[str]:
        """Return the last lines, also one that was never ended."""
        lines = self._take(self._text.end())
        if last := self._next():
            lines.append(last)
        return lines

    def _take(self, text: str) -> list[str]:
        lines: list[str] = []
        begin = 0
        for end in _ENDS.finditer(text):
            self._write(text[begin : end.start()], lines)
            begin = end.end()
            if end[0] == "\n":
                lines.append(self._next())
            else:
                self._return()
        self._write(text[begin:], lines)
        return lines

    def _write(self, text: str, lines: list[str]) -> None:
        while len(text) > self._line_chars - self._length:
            room = _cut(text, self._line_chars - self._length)
            self._append(text[:room])
            lines.append(self._next())
            text = text[room:]
        self._append(text)

    def _append(self, text: str) -> None:
        if text:
            self._written.append(text)
            self._length += len(text)

    def _return(self) -> None:
        self._before = self.unfinished
        self._written, self._length = [], 0

    def _next(self) -> str:
        line, self._before = self.unfinished, ""
        self._written, self._length = [], 0
        return line


def _cut(text: str, at: int) -> int:
    """Return where to cut at the latest `at`, so that no colour is cut in two."""
    begin = text.rfind("\x1b", 0, at)
    return at if begin < 0 or "m" in text[begin:at] else begin
