"""What a configuration file is before it means anything: scalars, sequences and mappings, each with its line.

Plain scalars mean what YAML 1.2 (core schema) says: `on`, `yes` and `off` are text, `010` is ten. A quoted
scalar is always text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ScalarKind = Literal["null", "bool", "int", "float", "str"]

_TAGS: dict[str, ScalarKind] = {
    "tag:yaml.org,2002:null": "null",
    "tag:yaml.org,2002:bool": "bool",
    "tag:yaml.org,2002:int": "int",
    "tag:yaml.org,2002:float": "float",
    "tag:yaml.org,2002:str": "str",
    "!": "str",
}
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_NOT_ALWAYS_TEXT = frozenset("~nNtTfF+-.0123456789")
"""What a plain scalar begins with that can be anything but a text: most are texts, and are told by this."""
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value: its text as written (quotes and escapes undone) and what it is."""

    line: int
    text: str
    kind: ScalarKind
    plain: bool
    """Written without quotes and tag."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    line: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A map; its keys are text, each once, in the order of the file."""

    line: int
    entries: dict[str, Node]
    lines: dict[str, int]
    """The line of each key."""


Node = Scalar | Sequence | Mapping


def plain_kind(text: str) -> ScalarKind:
    """What a plain scalar is by the rules of YAML 1.2."""
    if text and text[0] not in _NOT_ALWAYS_TEXT:
        return "str"
    if text in _NULL:
        return "null"
    if text in _TRUE or text in _FALSE:
        return "bool"
    if _INT.fullmatch(text):
        return "int"
    return "float" if _FLOAT.fullmatch(text) else "str"


def tagged_kind(tag: str) -> ScalarKind | None:
    """What a tag says a scalar is; None for a tag that a configuration may not use."""
    return _TAGS.get(tag)


def is_true(text: str) -> bool:
    """Whether the text of a `bool` scalar is true."""
    return text in _TRUE


def to_int(text: str) -> int:
    """The number that the text of an `int` scalar stands for. Raises ValueError when it is absurdly long."""
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


def describe(node: Node) -> str:
    """What it is, for a message: `a list`, `a map`, `the number 10`."""
    match node:
        case Sequence():
            return "a list"
        case Mapping():
            return "a map"
        case Scalar(kind="null"):
            return "null"
        case Scalar(kind="bool"):
            return f"the boolean {node.text}"
        case Scalar(kind="str"):
            return "a text"
        case Scalar():
            return f"the number {node.text[:40]}"
