"""Untrusted text on a terminal: control characters and changes of direction are shown as escapes.

Names, messages and reasons come from configuration files, git and other people. They must not move the cursor, change
the title or hide the text beside them.
"""

from __future__ import annotations

import codecs
import os
import re
import sys

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_LINES = re.compile(f"(?![\n\t]){_UNSAFE.pattern}")
_IN_ASCII = {"✓": "+", "✗": "x", "●": "*", "○": "o", "■": "#", "…": "...", "—": "-", "·": "."}
_ERRORS = "runstream-ascii"
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def printable(text: str) -> str:
    r"""Return the text in one line, with control and direction characters as escapes such as `\x1b`."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """Return the text as `printable` does, but keep its line ends and tabs."""
    return _UNSAFE_IN_LINES.sub(lambda found: ascii(found[0])[1:-1], text)


def printable_json(text: str) -> str:
    """Return JSON with the same characters in JSON's own escapes, which keep the value."""
    return _UNSAFE_IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def prepare_streams() -> None:
    """Open closed streams on the null device; let output replace characters that its encoding lacks by ASCII."""
    _open_closed()
    codecs.register_error(_ERRORS, _nearest)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_ERRORS)


def _open_closed() -> None:
    """Open stdin, stdout and stderr where the caller closed them (`>&-`), which makes them None in Python.

    Their descriptors are taken, too: else the next file or socket gets one, and output of programs goes into it.
    """
    for descriptor, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            os.set_inheritable(opened, opened == descriptor)
            setattr(sys, name, os.fdopen(opened, mode, encoding="utf-8"))


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_IN_ASCII.get(each, "?") for each in error.object[error.start : error.end]), error.end
