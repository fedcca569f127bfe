"""The nodes of a configuration file (scalars, sequences, mappings), each with its line, and the bounds on them.

Plain scalars follow YAML 1.2 (core schema): `on`, `yes` and `off` are text, `010` is ten. A quoted scalar is always
text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, overload

MAX_NODES = 100_000
MAX_DEPTH = 64
ScalarKind = Literal["null", "bool", "int", "float", "str"]

TAGS: dict[str, ScalarKind] = {
    "tag:yaml.org,2002:null": "null",
    "tag:yaml.org,2002:bool": "bool",
    "tag:yaml.org,2002:int": "int",
    "tag:yaml.org,2002:float": "float",
    "tag:yaml.org,2002:str": "str",
    "!": "str",
}
"""The kinds that tags give scalars; configurations may use no other tags."""
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_NOT_ALWAYS_TEXT = frozenset("~nNtTfF+-.0123456789")
"""First characters of plain scalars that may be anything but text. Most scalars are text, and skip the comparisons."""
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class UnreadableTextError(Exception):
    """A text that is not a configuration file: a sentence, the line, and a hint."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A single value: its text, without quotes and escapes, and its kind."""

    line: int
    text: str
    kind: ScalarKind
    plain: bool
    """Written without quotes and tag."""


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A list."""

    line: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A map with unique text keys, in the order of the file."""

    line: int
    entries: dict[str, Node]
    lines: dict[str, int]
    """The line of each key."""


Node = ScalarNode | SequenceNode | MappingNode


def plain_kind(text: str) -> ScalarKind:
    """Return the kind of a plain scalar by the rules of YAML 1.2."""
    if text and text[0] not in _NOT_ALWAYS_TEXT:
        return "str"
    if text in _NULL:
        return "null"
    if text in _TRUE or text in _FALSE:
        return "bool"
    if _INT.fullmatch(text):
        return "int"
    return "float" if _FLOAT.fullmatch(text) else "str"


def is_true(text: str) -> bool:
    """Return the value of a `bool` scalar."""
    return text in _TRUE


def to_int(text: str) -> int:
    """Return the value of an `int` scalar. Raise ValueError past the digits that Python converts."""
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


@overload
def value_of(node: MappingNode) -> dict[str, object]: ...
@overload
def value_of(node: Node) -> object: ...
def value_of(node: Node) -> object:
    """Return a node as dicts, lists, texts, numbers, booleans and None; a number too long for Python is a text."""
    match node:
        case SequenceNode(items=items):
            return [value_of(item) for item in items]
        case MappingNode(entries=entries):
            return {key: value_of(entry) for key, entry in entries.items()}
        case ScalarNode(kind="null"):
            return None
        case ScalarNode(text=text, kind="bool"):
            return is_true(text)
        case ScalarNode(text=text, kind="int"):
            try:
                return to_int(text)
            except ValueError:
                return text
        case ScalarNode(text=text, kind="float"):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        case ScalarNode(text=text):
            return text


def unicode_text(text: str, line: int) -> str:
    """Join the surrogate pairs of a text (JSON escapes make them). Raise UnreadableTextError if it is not Unicode."""
    if "\0" in text:
        raise UnreadableTextError(line, "a text contains the character NUL")
    if text.isascii():
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise UnreadableTextError(line, "a text contains half of a surrogate pair") from error


def describe(node: Node) -> str:
    """Name a node in a message: `a list`, `a map`, `the number 10`."""
    match node:
        case SequenceNode():
            return "a list"
        case MappingNode():
            return "a map"
        case ScalarNode(kind="null"):
            return "null"
        case ScalarNode(kind="bool"):
            return f"the boolean {node.text}"
        case ScalarNode(kind="str"):
            return "a text"
        case ScalarNode():
            return f"the number {node.text[:40]}"
