"""Events of the YAML reader made into nodes, within bounds that no file can exceed however it is written.

Depth and number of nodes are bounded while reading, and an alias counts as everything that it stands for, so
that a file of a few lines cannot stand for a billion nodes. Keys are unique. Merge keys (`<<`) are understood.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ruamel.yaml.events import AliasEvent, Event, MappingStartEvent, ScalarEvent, SequenceStartEvent

from runstream.runconfig.bounds import MAX_DEPTH, MAX_NODES, RefusedError, sound
from runstream.runconfig.nodes import Mapping, Node, Scalar, ScalarKind, Sequence, plain_kind, tagged_kind
from runstream.runconfig.problems import shown

_COLLECTION_TAGS = {None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_MERGE = "<<"
_TAG_HINTS = {"bool": "write true or false", "int": "write a whole number", "float": "write a number"}


class Composer:
    """Makes the nodes of one document out of its events."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._count = 0
        self._anchors: dict[str, tuple[Node, int] | None] = {}

    def compose(self, event: Event, depth: int = 0) -> Node:
        """The node that begins with this event. Raises RefusedError."""
        line = line_of(event)
        if isinstance(event, AliasEvent):
            return self._alias(event, line)
        self._grow(1, line)
        if depth > MAX_DEPTH:
            raise RefusedError(line, f"nested deeper than {MAX_DEPTH} levels")
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
            raise RefusedError(
                line,
                f"more than {MAX_NODES} values, counting what aliases stand for",
                "split the configuration, or generate less",
            )

    def _alias(self, event: AliasEvent, line: int) -> Node:
        known = self._anchors.get(str(event.anchor), ())
        if known is None:
            raise RefusedError(line, f"alias {shown(str(event.anchor))} stands inside of what it names")
        if not known:
            raise RefusedError(line, f"alias {shown(str(event.anchor))} names nothing", "an anchor comes first: &name")
        node, size = known
        self._grow(size, line)
        return replace(node, line=line)

    def _node(self, event: Event, line: int, depth: int) -> Node:
        if isinstance(event, ScalarEvent):
            return _scalar(event, line)
        tag = _tag_of(event)
        if tag not in _COLLECTION_TAGS and not _is_local(tag):
            raise RefusedError(line, f"unknown tag {shown(str(tag))}", "leave the tag out")
        if isinstance(event, SequenceStartEvent):
            return self._sequence(line, depth)
        return self._mapping(line, depth)

    def _sequence(self, line: int, depth: int) -> Sequence:
        return Sequence(line, tuple(self.compose(event, depth + 1) for event in self._until_end()))

    def _mapping(self, line: int, depth: int) -> Mapping:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        merged: list[Mapping] = []
        for event in self._until_end():
            key = self.compose(event, depth + 1)
            value = self.compose(next(self._events), depth + 1)
            text = _key(key, line_of(event))
            if text == _MERGE and isinstance(key, Scalar) and key.plain:
                merged += _merged(value)
                continue
            if text in entries:
                raise RefusedError(
                    line_of(event), f"key {shown(text)} is given twice", f"the first is on line {lines[text]}"
                )
            entries[text], lines[text] = value, line_of(event)
        for source in merged:
            for text, value in source.entries.items():
                if text not in entries:
                    entries[text], lines[text] = value, source.lines[text]
        return Mapping(line, entries, lines)

    def _until_end(self) -> Iterator[Event]:
        """Events up to the end of the collection that has just begun; whoever takes one consumes its children."""
        for event in self._events:
            if not isinstance(event, (ScalarEvent, AliasEvent, SequenceStartEvent, MappingStartEvent)):
                return
            yield event


def line_of(event: Event) -> int:
    """The line on which an event begins, from 1."""
    return int(event.start_mark.line) + 1 if event.start_mark is not None else 1


def _scalar(event: ScalarEvent, line: int) -> Scalar:
    text = sound(str(event.value), line)
    tag = _tag_of(event)
    plain = event.style in (None, "")
    if tag is None or _is_local(tag):
        return Scalar(line, text, plain_kind(text) if plain else "str", plain)
    kind: ScalarKind | None = tagged_kind(tag)
    if kind is None:
        raise RefusedError(line, f"unknown tag {shown(tag)}", "leave the tag out")
    if kind != "str" and plain_kind(text) != kind and (kind, plain_kind(text)) != ("float", "int"):
        name = f"!!{tag.rpartition(':')[2]}"
        raise RefusedError(line, f"{shown(text)} is no value of the tag {name}", _TAG_HINTS.get(kind, ""))
    return Scalar(line, text, kind, plain=False)


def _tag_of(event: Event) -> str | None:
    tag = getattr(event, "tag", None)
    return None if tag is None else str(tag)


def _is_local(tag: str | None) -> bool:
    """Whether it is a tag of the file's own (`!name`), which means nothing here."""
    return tag is not None and tag.startswith("!") and tag != "!"


def _key(key: Node, line: int) -> str:
    if not isinstance(key, Scalar) or key.kind == "null":
        raise RefusedError(line, "a key is not a text", "a key is a plain or quoted word before a colon")
    return key.text


def _merged(value: Node) -> list[Mapping]:
    sources = value.items if isinstance(value, Sequence) else (value,)
    maps = [source for source in sources if isinstance(source, Mapping)]
    if len(maps) != len(sources):
        raise RefusedError(value.line, "only a map, or a list of maps, can be merged with <<")
    return maps
