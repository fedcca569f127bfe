"""From YAML to nodes: whatever the reader of the library raises is about the text, and says so with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import DocumentStartEvent, Event, ScalarEvent, StreamEndEvent
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.tokens import (
    AliasToken,
    FlowMappingEndToken,
    FlowMappingStartToken,
    FlowSequenceEndToken,
    FlowSequenceStartToken,
    ScalarToken,
)

from runstream.runconfig.bounds import MAX_DEPTH, MAX_NODES, RefusedError
from runstream.runconfig.composing import Composer, line_of
from runstream.runconfig.nodes import Node

T = TypeVar("T")

_COLON_INSIDE = re.compile(r"(?<=[^\s\"'\[\]{},]):(?=[^\s\[\]{},])")
"""A colon between two characters of a plain text: nowhere in YAML 1.2 does it end a key.

A key in quotes or brackets may have its colon right behind it (`{"a":b}`), so what follows these is left out.
"""
_COLON_IN_FLOW = re.compile(
    r"(?<=[^\s\"'\[\]{},]):(?=[^\s\[\]{},])"  # inside a plain text
    r"|(?<=[\s\[{,]):(?=[^\s\[\]{},\"'&*!|>%@`])"  # at the start of one
    r"|(?<![\"'\]}]):(?=[\[\]{},])"  # behind a key, with no space before what follows it
)
"""Every colon that the library refuses in flow style and YAML 1.2 does not."""
_PRIVATE = range(0xE000, 0xF8FF)
"""Characters for private use, one of which stands for such a colon while the library reads."""
_REFUSED_COLON = ("unexpected ':'", "did not find expected node content")
_MAX_TOKENS = 4 * MAX_NODES
_ENDS_A_KEY = (FlowSequenceEndToken, FlowMappingEndToken, AliasToken)


def compose_yaml(text: str) -> Node | None:
    """The node that the text is; None for an empty one. Raises RefusedError.

    The library's scanner, fast as it is, follows YAML 1.1 in flow style: it refuses a colon inside a plain text
    (`{image: python:3.12}`), at the start of one (`[:x]`) and right before a bracket or comma (`{a:, b:[]}`). Such a
    text is read again with another character for these colons, and with a space behind those that end a key. In
    quotes, block scalars and comments that changes nothing, because every one is put back.
    """
    try:
        return _composed(_events(text))
    except RefusedError as error:
        stand_in = next((chr(code) for code in _PRIVATE if chr(code) not in text), "")
        if not stand_in or not _is_about_colons(error):
            raise
    try:
        return _composed_with(_COLON_INSIDE.sub(stand_in, text), stand_in)
    except RefusedError as error:
        if not _is_about_colons(error):
            raise
    return _composed_with(_spaced(_COLON_IN_FLOW.sub(stand_in, text), stand_in), stand_in)


def _is_about_colons(error: RefusedError) -> bool:
    return any(words in error.message for words in _REFUSED_COLON)


def _composed_with(text: str, stand_in: str) -> Node | None:
    try:
        return _composed(_restored(_events(text), stand_in))
    except RefusedError as error:
        raise RefusedError(error.line, error.message.replace(stand_in, ":"), error.hint) from error.__cause__


def _spaced(text: str, stand_in: str) -> str:
    """The text with a colon and a space for each stand-in that ends a key in flow style.

    Only the scanner knows what is plain and in flow style. There a stand-in ends a key when it is the last character
    of a plain text, or the first of one right behind a key in quotes.
    """
    parts: list[str] = []
    done = 0
    for at in _key_ends(text, stand_in):
        parts += text[done:at], ": "
        done = at + 1
    return "".join((*parts, text[done:]))


def _key_ends(text: str, stand_in: str) -> Iterator[int]:
    depth, after_key = 0, False
    for token in islice(_read(YAML(typ="safe").scan, text), _MAX_TOKENS):
        plain = isinstance(token, ScalarToken) and token.plain
        if isinstance(token, FlowSequenceStartToken | FlowMappingStartToken):
            depth += 1
            if depth > MAX_DEPTH:
                return
        elif isinstance(token, FlowSequenceEndToken | FlowMappingEndToken):
            depth -= 1
        elif plain and depth:
            first, last = token.start_mark.index, token.end_mark.index - 1
            if after_key and text[first] == stand_in:
                yield first
            if text[last] == stand_in and not (after_key and first == last):
                yield last
        after_key = isinstance(token, _ENDS_A_KEY) or (isinstance(token, ScalarToken) and not plain)


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
    return _read(YAML(typ="safe").parse, text)


def _read(read: Callable[[str], Iterator[T]], text: str) -> Iterator[T]:
    """The reader's events or tokens; whatever it raises is about the text."""
    try:
        yield from read(text)
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
