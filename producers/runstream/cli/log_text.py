"""Log output made safe for a terminal: text and colours get through, nothing else.

A log is bytes of any program, often of people who may not run anything on the reader's machine. A terminal obeys what
it is sent: titles, clipboards, cursors, character sets, answers typed into the reader's shell. So every control
sequence but colours and emphasis (SGR) is left out, whole, however the bytes are cut into chunks.
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
"""Characters of a sequence that are kept while it is incomplete; a longer one is left out."""

_COLOUR = re.compile(
    r"(0?[0-479]|2[1-479]|[34][0-79]|5[359]|9[0-7]|10[0-7]"  # emphasis, and the sixteen colours
    r"|[345]8;5;\d{1,3}|[345]8;2;\d{1,3};\d{1,3};\d{1,3}"  # one of 256; red, green and blue
    r"|4:[0-5]|[345]8:5:\d{1,3}|[345]8:2(?::\d{0,3}){3,4})?(?:;|$)"
)
_UNKNOWN = re.compile(r"[^;]*(?:;|$)")
_PUBLIC = re.compile("[0-9:;]*")


class _In(Enum):
    TEXT = auto()
    ESCAPE = auto()
    CONTROL = auto()
    """A control sequence, `ESC [`."""
    STRING = auto()
    """A title, a clipboard, a device's string: `ESC ]`, `ESC P` and the like, up to `ESC \\` or BEL."""


class LogText:
    """Text of a log, chunk by chunk: lines, tabs, carriage returns and colours; a colour ends with its line."""

    def __init__(self, *, colours: bool = True) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._colours = colours
        self._coloured = False
        self._in = _In.TEXT
        self._parameters = ""

    def feed(self, chunk: bytes) -> str:
        """Return what a terminal may show of the chunk. What may be part of a sequence is kept for the next one."""
        return self._shown(self._decoder.decode(chunk))

    def end(self) -> str:
        """Return what is left; an incomplete sequence is not shown."""
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
        """Leave out `ESC` with its intermediates and its final character, such as `ESC ( B`."""
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
                return at  # not of the sequence: text again
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
        """Leave out a string to its end; one that is not ended ends with its line."""
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
    """Return those parameters that are colours or emphasis; None for none."""
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
    """Return what matches from there on; nothing for no match."""
    found = pattern.match(text, at)
    return found[0] if found else ""


LINE_CHARS = 64 << 10
"""Characters of a line; what is longer goes on in the next line."""
_ENDS = re.compile("[\n\r]")
_SGR = re.compile("\x1b\\[[0-9;:]*m")


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
        if not _SGR.sub("", written):
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
