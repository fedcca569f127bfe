"""What no configuration may exceed or hold, whatever it is written in, and the error that says so."""

from __future__ import annotations

MAX_NODES = 100_000
MAX_DEPTH = 64


class RefusedError(Exception):
    """The text is not a configuration file: one sentence, the line, and a hint."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.hint = hint


def sound(text: str, line: int) -> str:
    """The text with surrogate pairs (as JSON escapes write them) joined; refused when it is no Unicode text."""
    if "\0" in text:
        raise RefusedError(line, "a text contains the character NUL")
    if text.isascii():
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise RefusedError(line, "a text contains half of a surrogate pair") from error
