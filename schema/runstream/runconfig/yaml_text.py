"""From YAML to nodes: whatever the reader of the library raises is about the text, and says so with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import DocumentStartEvent, Event, ScalarEvent, StreamEndEvent
from ruamel.yaml.reader import ReaderError

from runstream.runconfig.bounds import RefusedError
from runstream.runconfig.composing import Composer, line_of
from runstream.runconfig.nodes import Node

_COLON_INSIDE = re.compile(r"(?<=[^\s\"'\[\]{},]):(?=[^\s\[\]{},])")
"""A colon between two characters of a plain text: nowhere in YAML 1.2 does it end a key.

A key in quotes or brackets may have its colon right behind it (`{"a":b}`), so what follows these is left out.
"""
_PRIVATE = range(0xE000, 0xF8FF)
"""Characters for private use, one of which stands for such a colon while the library reads."""


def compose_yaml(text: str) -> Node | None:
    """The node that the text is; None for an empty one. Raises RefusedError.

    The library's scanner, fast as it is, refuses a colon inside of a plain text in flow style
    (`{image: python:3.12}`). Such a text is read again with another character for each of these colons. In quotes,
    block scalars and comments that changes nothing, because every one is put back.
    """
    try:
        return _composed(_events(text))
    except RefusedError as error:
        stand_in = next((chr(code) for code in _PRIVATE if chr(code) not in text), "")
        if "unexpected ':'" not in error.message or not stand_in:
            raise
    try:
        return _composed(_restored(_events(_COLON_INSIDE.sub(stand_in, text)), stand_in))
    except RefusedError as error:
        raise RefusedError(error.line, error.message.replace(stand_in, ":"), error.hint) from error.__cause__


def _restored(events: Iterator[Event], stand_in: str) -> Iterator[Event]:
    for event in events:
        if isinstance(event, ScalarEvent):
            event.value = event.value.replace(stand_in, ":")
        yield event


def _composed(events: Iterator[Event]) -> Node | None:
    root: Node | None = None
    for event in events:
        if isinstance(event, StreamEndEvent):
            break
        if not isinstance(event, DocumentStartEvent):
            continue
        if root is not None:
            raise RefusedError(line_of(event), "the file holds more than one document", "remove what follows ---")
        root = Composer(events).compose(next(events))
    return root


def _events(text: str) -> Iterator[Event]:
    """The reader's events; whatever it raises is about the text."""
    try:
        yield from YAML(typ="safe").parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = int(mark.line) + 1 if mark is not None else 1
        raise RefusedError(
            line, f"not readable: {error.problem or error.context}", _hint(str(error.problem))
        ) from error
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise RefusedError(line, "a character that no text file holds", "remove control characters") from error
    except GeneratorExit:
        raise
    except Exception as error:
        raise RefusedError(1, f"not readable: {error}"[:200]) from error


def _hint(problem: str) -> str:
    if "cannot start any token" in problem:
        return "indent with spaces, not with tabs; put a text that begins with @, ` or % in quotes"
    if "mapping values are not allowed" in problem:
        return "put a text that contains ': ' in quotes"
    if "unexpected ':'" in problem:
        return "put the text in quotes, or a space behind the colon"
    if "Unicode character escape" in problem:
        return "write the character itself"
    return ""
