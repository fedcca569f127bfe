"""Log output made safe for a terminal: only text and colours pass.

A log is the output of any program, often by people who may not run anything on the reader's machine. A terminal obeys
control sequences: titles, clipboards, cursors, character sets, answers typed into the reader's shell. So all of them
but colours and emphasis (SGR) are removed, whole, however the bytes are split into chunks.
"""

from __future__ import annotations

import codecs
import re
from enum import Enum, auto

RESET = "\x1b[0m"

_PLAIN = re.compile("[^\x00-\x08\x0a-\x1f\x7f-\x9f]+")
_DROPPED = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x8f\x91-\x97\x99\x9a\x9c]+")
_PARAMETERS = re.compile("[\x20-\x3f]*")
_INTERMEDIATES = re.compile("[\x20-\x2f]*")
_IN_STRING = re.compile("[^\x07\n\x18\x1a\x1b\x9c]*")
_MAX_PARAMETERS = 256
"""Characters kept of an incomplete sequence; a longer one is removed."""

_COLOUR = re.compile(
    r"(0?[0-479]|2[1-479]|[34][0-79]|5[359]|9[0-7]|10[0-7]"  # emphasis, and the sixteen colours
    r"|[345]8;5;\d{1,3}|[345]8;2;\d{1,3};\d{1,3};\d{1,3}"  # one of 256; red, green and blue
    r"|4:[0-5]|[345]8:5:\d{1,3}|[345]8:2(?::\d{0,3}){3,4})?(?:;|$)"
)
_UNKNOWN = re.compile(r"[^;]*(?:;|$)")
_PUBLIC = re.compile("[0-9:;]*")
LINE_CHARS = 64 << 10
"""Maximum length of a line; a longer one is continued in the next, so that the memory for it is bounded."""
_ENDS = re.compile("[\n\r]")
_SGR = re.compile("\x1b\\[[0-9;:]*m")


class _In(Enum):
    TEXT = auto()
    ESCAPE = auto()
    CONTROL = auto()
    """A control sequence, `ESC [`."""
    STRING = auto()
    """A title, a clipboard, a device's string: `ESC ]`, `ESC P` and the like, up to `ESC \\` or BEL."""


class LogText:
    """A filter of a log's chunks that passes lines, tabs, carriage returns and colours; a colour ends with its line."""

    def __init__(self, *, colours: bool = True) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._colours = colours
        self._coloured = False
        self._in = _In.TEXT
        self._parameters = ""

    def feed(self, chunk: bytes) -> str:
        """Return the safe text of a chunk. An incomplete sequence is kept for the next one."""
        return self._shown(self._decoder.decode(chunk))

    def end(self) -> str:
        """Return the remaining text, without an incomplete sequence."""
        text = self._shown(self._decoder.decode(b"", final=True))
        return text + self._uncoloured()

    def _shown(self, text: str) -> str:
        parts: list[str] = []
        at = 0
        while at < len(text):
            match self._in:
                case _In.TEXT:
                    at = self._text(text, at, parts)
                case _In.ESCAPE:
                    at = self._escape(text, at)
                case _In.CONTROL:
                    at = self._control(text, at, parts)
                case _In.STRING:
                    at = self._string(text, at)
        return "".join(parts)

    def _text(self, text: str, at: int, parts: list[str]) -> int:
        if plain := _PLAIN.match(text, at):
            parts.append(plain[0])
            return plain.end()
        if dropped := _DROPPED.match(text, at):
            return dropped.end()
        match text[at]:
            case "\n" | "\v" | "\f":
                parts.append(f"{self._uncoloured()}\n")
            case "\r":
                parts.append("\r")
            case "\x1b":
                self._in, self._parameters = _In.ESCAPE, ""
            case "\x9b":
                self._in, self._parameters = _In.CONTROL, ""
            case _:  # \x90, \x98, \x9d, \x9e, \x9f
                self._in = _In.STRING
        return at + 1

    def _escape(self, text: str, at: int) -> int:
        """Skip `ESC` with its intermediates and its final character, such as `ESC ( B`."""
        intermediates = _run(_INTERMEDIATES, text, at)
        self._parameters = (self._parameters + intermediates)[:1]
        at += len(intermediates)
        if at == len(text):
            return at
        alone = not self._parameters
        self._in = _In.TEXT
        match text[at]:
            case "[" if alone:
                self._in = _In.CONTROL
            case "]" | "P" | "X" | "^" | "_" if alone:
                self._in = _In.STRING
            case final if not "0" <= final <= "~":
                return at  # not part of the sequence
        return at + 1

    def _control(self, text: str, at: int, parts: list[str]) -> int:
        parameters = _run(_PARAMETERS, text, at)
        self._parameters = (self._parameters + parameters)[:_MAX_PARAMETERS]
        at += len(parameters)
        if at == len(text):
            return at
        self._in = _In.TEXT
        final, parameters = text[at], self._parameters
        if not "@" <= final <= "~":
            return at
        if final == "m" and len(parameters) < _MAX_PARAMETERS and _PUBLIC.fullmatch(parameters):
            parts.append(self._colour(parameters))
        elif final == "G" and parameters in ("", "0", "1"):
            parts.append("\r")  # to the first column: how some progress bars return
        return at + 1

    def _string(self, text: str, at: int) -> int:
        """Skip a string to its end, or to the end of its line."""
        at += len(_run(_IN_STRING, text, at))
        if at == len(text):
            return at
        self._in = _In.ESCAPE if text[at] == "\x1b" else _In.TEXT
        self._parameters = ""
        return at if text[at] == "\n" else at + 1

    def _colour(self, parameters: str) -> str:
        kept = _colours(parameters) if self._colours else None
        if kept is None:
            return ""
        self._coloured = kept.rpartition(";")[2] not in ("", "0", "00")
        return f"\x1b[{kept}m"

    def _uncoloured(self) -> str:
        coloured, self._coloured = self._coloured, False
        return RESET if coloured else ""


def _colours(parameters: str) -> str | None:
    """Return the parameters that are colours or emphasis; None without any."""
    kept: list[str] = []
    at = 0
    while at <= len(parameters):
        found = _COLOUR.match(parameters, at)
        if found is not None:
            kept.append(found[1] or "0")
            read = found[0]
        else:
            read = _run(_UNKNOWN, parameters, at)
        at += len(read) if read.endswith(";") else len(parameters) + 1
    return ";".join(kept) if kept else None


def _run(pattern: re.Pattern[str], text: str, at: int) -> str:
    """Return the match at this place, or an empty text."""
    found = pattern.match(text, at)
    return found[0] if found else ""


class SafeLines:
    """A splitter of a log's chunks into safe lines; a carriage return starts the line again, as on a terminal."""

    def __init__(self, *, colours: bool = True, line_chars: int = LINE_CHARS) -> None:
        self._text = LogText(colours=colours)
        self._line_chars = line_chars
        self._written: list[str] = []
        """Written since the last return to the line's start."""
        self._length = 0
        self._before = ""
        """The line before that return."""

    @property
    def unfinished(self) -> str:
        """The unfinished line as a terminal would show it; colours alone count as empty."""
        written = "".join(self._written)
        if not _SGR.sub("", written):
            return self._before
        last = written.rfind("\x1b[")
        return written if last < 0 or written.startswith(RESET, last) else written + RESET

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines that end in this chunk."""
        return self._take(self._text.feed(chunk))

    def end(self) -> list[str]:
        """Return the last lines, including an unfinished one."""
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
    """Return the last place up to `at` that does not split a colour."""
    begin = text.rfind("\x1b", 0, at)
    return at if begin < 0 or "m" in text[begin:at] else begin
