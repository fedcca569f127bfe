"""Reading YAML 1.2 into nodes. Every exception of the library becomes an UnreadableTextError with a line.

Depth and number of nodes are bounded while reading, and an alias counts as all nodes of its anchor, so that a file of
a few lines cannot expand to a billion nodes. Duplicate keys are refused; merge keys (`<<`) work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.tokens import (
    AliasToken,
    FlowMappingEndToken,
    FlowMappingStartToken,
    FlowSequenceEndToken,
    FlowSequenceStartToken,
    KeyToken,
    ScalarToken,
)

from runstream.runconfig.nodes import (
    MAX_DEPTH,
    MAX_NODES,
    TAGS,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    UnreadableTextError,
    plain_kind,
    unicode_text,
)
from runstream.runconfig.problems import quoted

T = TypeVar("T")

_COLON_INSIDE = re.compile(r"(?<=[^\s\"'\[\]{},]):(?=[^\s\[\]{},])")
"""A colon between two characters of a plain text, which never ends a key in YAML 1.2.

Not one right behind quotes or brackets, which ends a key without a space (`{"a":b}`).
"""
_COLON_IN_FLOW = re.compile(
    r"(?<=[^\s\"'\[\]{},]):(?=[^\s\[\]{},])"  # inside a plain text
    r"|(?<=[\s\[{,\"']):(?=[^\s\[\]{},\"'])"  # at the start of one, or right behind quotes
    r"|(?<![\"'\]}]):(?=[\[\]{},])"  # behind a key, with no space before what follows it
)
"""Every colon in flow style that YAML 1.2 allows and the library refuses."""
_QUESTION_FIRST = re.compile(r"(?<![^\s\[{,])\?(?=[^\s\[\]{},])")
"""A question mark that begins a plain text; in flow style the library takes it for the mark of a key."""
_QUESTION_INSIDE = re.compile(r"(?<=[^\s\[{,:?-])[ \t?-]*\?|(?<=[:-])\?[ \t?-]*")
"""Question marks behind the first character of a plain text, with blanks and dashes between them.

The mark of a key stands first, or behind other marks alone (`- ? a`).
"""
_MISREAD = re.compile(r"^[ \t]*\?\s|:[!&*]", re.MULTILINE)
"""What the library may take for something else, with any error: a question mark that begins a line, and a colon before
the mark of a tag, an anchor or an alias.
"""
_PRIVATE = range(0xE000, 0xF8FF)
"""Characters for private use; two that the text lacks stand for such characters while the library reads."""
_REFUSED_COLON = ("unexpected ':'", "did not find expected node content", "cannot start any token")
_MAX_TOKENS = 4 * MAX_NODES
_ENDS_A_KEY = (FlowSequenceEndToken, FlowMappingEndToken, AliasToken)
_COLLECTION_TAGS = {None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_MERGE = "<<"
_TAG_HINTS = {"bool": "write true or false", "int": "write a whole number", "float": "write a number"}


def compose_yaml(text: str) -> Node | None:
    """Return the root node; None for an empty text. Raise UnreadableTextError.

    In flow style the library's scanner follows YAML 1.1: it refuses a question mark or a colon inside a plain text
    (`{image: python:3.12}`, `[a?b]`), a colon at the start of one (`[:x]`) and right before a bracket or comma
    (`{a:, b:[]}`), a question mark that continues one on a new line, and it reads `[?x]` as a key. Such a text is read
    with stand-in characters for these, and with a space behind the colons that end a key. That is safe in quotes, block
    scalars and comments too, because each stand-in becomes its character again in the events.
    """
    free = [chr(code) for code in islice((code for code in _PRIVATE if chr(code) not in text), 2)]
    if len(free) < 2:
        return _composed(_events(text))
    colon, question = free
    stand_ins = {colon: ":", question: "?"}
    text = _QUESTION_FIRST.sub(question, text)
    try:
        return _composed_with(text, stand_ins)
    except UnreadableTextError as error:
        # What follows a question mark is read as something else, with any error.
        if "?" not in text and not _may_be_right(text, error):
            raise
    text = _QUESTION_INSIDE.sub(lambda marks: marks[0].replace("?", question), text)
    for rewritten in (text, _COLON_INSIDE.sub(colon, text)):
        try:
            return _composed_with(rewritten, stand_ins)
        except UnreadableTextError as error:
            if not _may_be_right(text, error):
                raise
    return _composed_with(_as_in_1_2(_COLON_IN_FLOW.sub(colon, text), colon, question), stand_ins)


def _may_be_right(text: str, error: UnreadableTextError) -> bool:
    return any(words in error.message for words in _REFUSED_COLON) or _MISREAD.search(text) is not None


def _composed_with(text: str, stand_ins: dict[str, str]) -> Node | None:
    try:
        return _composed(_restored(_events(text), stand_ins))
    except UnreadableTextError as error:
        characters = str.maketrans("".join(stand_ins), "".join(stand_ins.values()))
        raise UnreadableTextError(error.line, error.message.translate(characters), error.hint) from error.__cause__


def _as_in_1_2(text: str, colon: str, question: str) -> str:
    """Replace stand-ins that end a key by a colon and a space, and question marks inside plain texts by a stand-in.

    Only the scanner knows which texts are plain and in flow style.
    """
    parts: list[str] = []
    done = 0
    for at, character in _misread(text, colon, question):
        parts += text[done:at], character
        done = at + 1
    return "".join((*parts, text[done:]))


def _misread(text: str, colon: str, question: str) -> Iterator[tuple[int, str]]:
    """Yield each character in flow style that the scanner takes for something else, and its replacement.

    A stand-in ends a key if it is the last character of a plain text, or the first one behind a quoted key. The mark of
    a key never follows a plain text: there it is part of it.
    """
    depth, after_key, after_plain = 0, False, False
    for token in islice(_read(YAML(typ="safe").scan, text), _MAX_TOKENS):
        plain = isinstance(token, ScalarToken) and token.plain
        if isinstance(token, FlowSequenceStartToken | FlowMappingStartToken):
            depth += 1
            if depth > MAX_DEPTH:
                return
        elif isinstance(token, FlowSequenceEndToken | FlowMappingEndToken):
            depth -= 1
        elif depth and after_plain and isinstance(token, KeyToken) and text[token.start_mark.index] == "?":
            yield token.start_mark.index, question
        elif plain and depth:
            first, last = token.start_mark.index, token.end_mark.index - 1
            if after_key and text[first] == colon:
                yield first, ": "
            if text[last] == colon and not (after_key and first == last):
                yield last, ": "
        after_key = isinstance(token, _ENDS_A_KEY) or (isinstance(token, ScalarToken) and not plain)
        after_plain = plain


def _restored(events: Iterator[Event], stand_ins: dict[str, str]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, ScalarEvent):
            for stand_in, character in stand_ins.items():
                event.value = event.value.replace(stand_in, character)
        yield event


def _composed(events: Iterator[Event]) -> Node | None:
    root: Node | None = None
    for event in events:
        if isinstance(event, StreamEndEvent):
            break
        if not isinstance(event, DocumentStartEvent):
            continue
        if root is not None:
            raise UnreadableTextError(
                _line_of(event), "the file holds more than one document", "remove what follows ---"
            )
        root = _Composer(events).compose(next(events))
    return root


def _events(text: str) -> Iterator[Event]:
    return _read(YAML(typ="safe").parse, text)


def _read(read: Callable[[str], Iterator[T]], text: str) -> Iterator[T]:
    """Yield the library's events or tokens; any exception of it, documented or not, is the text's fault."""
    try:
        yield from read(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = int(mark.line) + 1 if mark is not None else 1
        raise UnreadableTextError(
            line, f"not readable: {error.problem or error.context}", _hint(str(error.problem))
        ) from error
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UnreadableTextError(line, "a character that no text file holds", "remove control characters") from error
    except GeneratorExit:
        raise
    except Exception as error:
        raise UnreadableTextError(1, f"not readable: {error}"[:200]) from error


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


class _Composer:
    """A maker of one document's nodes from its events."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._count = 0
        self._anchors: dict[str, tuple[Node, int] | None] = {}

    def compose(self, event: Event, depth: int = 0) -> Node:
        """Return the node that begins with this event. Raise UnreadableTextError."""
        line = _line_of(event)
        if isinstance(event, AliasEvent):
            return self._alias(event, line)
        self._grow(1, line)
        if depth > MAX_DEPTH:
            raise UnreadableTextError(line, f"nested deeper than {MAX_DEPTH} levels")
        anchor: str | None = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = None
        before = self._count
        node = self._node(event, line, depth)
        if anchor is not None:
            self._anchors[anchor] = (node, self._count - before + 1)
        return node

    def _grow(self, nodes: int, line: int) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            raise UnreadableTextError(
                line,
                f"more than {MAX_NODES} values, counting what aliases stand for",
                "split the configuration, or generate less",
            )

    def _alias(self, event: AliasEvent, line: int) -> Node:
        known = self._anchors.get(str(event.anchor), ())
        alias = f"alias {quoted(str(event.anchor))}"
        if known is None:
            raise UnreadableTextError(line, f"{alias} stands inside of what it names")
        if not known:
            raise UnreadableTextError(line, f"{alias} names nothing", "an anchor comes first: &name")
        node, size = known
        self._grow(size, line)
        return replace(node, line=line)

    def _node(self, event: Event, line: int, depth: int) -> Node:
        if isinstance(event, ScalarEvent):
            return _scalar(event, line)
        tag = _tag_of(event)
        if tag not in _COLLECTION_TAGS and not _is_local(tag):
            raise UnreadableTextError(line, f"unknown tag {quoted(str(tag))}", "leave the tag out")
        if isinstance(event, SequenceStartEvent):
            return self._sequence(line, depth)
        return self._mapping(line, depth)

    def _sequence(self, line: int, depth: int) -> SequenceNode:
        return SequenceNode(line, tuple(self.compose(event, depth + 1) for event in self._until_end()))

    def _mapping(self, line: int, depth: int) -> MappingNode:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        merged: list[MappingNode] = []
        for event in self._until_end():
            key = self.compose(event, depth + 1)
            value = self.compose(next(self._events), depth + 1)
            text = _key(key, _line_of(event))
            if text == _MERGE and isinstance(key, ScalarNode) and key.plain:
                merged += _merged(value)
                continue
            if text in entries:
                raise UnreadableTextError(
                    _line_of(event), f"key {quoted(text)} is given twice", f"the first is on line {lines[text]}"
                )
            entries[text], lines[text] = value, _line_of(event)
        for source in merged:
            for text, value in source.entries.items():
                if text not in entries:
                    entries[text], lines[text] = value, source.lines[text]
        return MappingNode(line, entries, lines)

    def _until_end(self) -> Iterator[Event]:
        """Yield the events of the current collection; the caller consumes those of each child."""
        for event in self._events:
            if not isinstance(event, (ScalarEvent, AliasEvent, SequenceStartEvent, MappingStartEvent)):
                return
            yield event


def _line_of(event: Event) -> int:
    """Return the line on which an event begins, from 1."""
    return int(event.start_mark.line) + 1 if event.start_mark is not None else 1


def _scalar(event: ScalarEvent, line: int) -> ScalarNode:
    text = unicode_text(str(event.value), line)
    tag = _tag_of(event)
    plain = event.style in (None, "")
    if tag is None or _is_local(tag):
        return ScalarNode(line, text, plain_kind(text) if plain else "str", plain)
    kind = TAGS.get(tag)
    if kind is None:
        raise UnreadableTextError(line, f"unknown tag {quoted(tag)}", "leave the tag out")
    if kind != "str" and plain_kind(text) != kind and (kind, plain_kind(text)) != ("float", "int"):
        name = f"!!{tag.rpartition(':')[2]}"
        raise UnreadableTextError(line, f"{quoted(text)} is no value of the tag {name}", _TAG_HINTS.get(kind, ""))
    return ScalarNode(line, text, kind, plain=False)


def _tag_of(event: Event) -> str | None:
    tag = getattr(event, "tag", None)
    return None if tag is None else str(tag)


def _is_local(tag: str | None) -> bool:
    """Return whether a tag is local (`!name`), which has no meaning here."""
    return tag is not None and tag.startswith("!") and tag != "!"


def _key(key: Node, line: int) -> str:
    if not isinstance(key, ScalarNode) or key.kind == "null":
        raise UnreadableTextError(line, "a key is not a text", "a key is a plain or quoted word before a colon")
    return key.text


def _merged(value: Node) -> list[MappingNode]:
    sources = value.items if isinstance(value, SequenceNode) else (value,)
    maps = [source for source in sources if isinstance(source, MappingNode)]
    if len(maps) != len(sources):
        raise UnreadableTextError(value.line, "only a map, or a list of maps, can be merged with <<")
    return maps
