"""Reading a configuration's text into nodes, in bounded time and memory whatever the text is.

JSON files go through the YAML reader, because existing files use the YAML that it allows. The output of a program is
strict JSON: its nodes are on line 0, since its lines mean nothing to the program's author, and numbers keep their text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Literal, NoReturn

from runstream.limits import MAX_FILE_BYTES
from runstream.runconfig.nodes import (
    MAX_DEPTH,
    MAX_NODES,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    UnreadableTextError,
    unicode_text,
)
from runstream.runconfig.problems import ConfigError, Problem

MAX_BYTES = MAX_FILE_BYTES
Format = Literal["yaml", "json", "generated"]
"""`generated` is the JSON output of a program."""

_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)((?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})+)")
_NOWHERE = 0
_NULL = ScalarNode(_NOWHERE, "null", "null", plain=True)
_TRUE = ScalarNode(_NOWHERE, "true", "bool", plain=True)
_FALSE = ScalarNode(_NOWHERE, "false", "bool", plain=True)

_Json = str | bool | ScalarNode | list["_Json"] | dict[str, "_Json"] | None


def read_nodes(text: bytes | str, source: str, syntax: Format = "yaml") -> Node | None:
    """Return the root node of a file; None for an empty file.

    Raise ConfigError for a file over 1 MiB, not in UTF-8, not YAML or JSON, with a duplicate key or a second document,
    or past the bounds on depth and size.
    """
    try:
        decoded = _decoded(text)
        if syntax == "generated":
            return _JsonComposer().compose(_parse_json(decoded), 0)
        from runstream.runconfig.yaml_text import compose_yaml  # not at the top: a program's output needs no ruamel

        return compose_yaml(_json_as_yaml(decoded) if syntax == "json" else decoded)
    except UnreadableTextError as error:
        raise ConfigError(source, [Problem("", error.line, error.message, error.hint)]) from error.__cause__


def _decoded(text: bytes | str) -> str:
    if len(text) > MAX_BYTES:
        raise UnreadableTextError(0, f"the file is bigger than {MAX_BYTES} bytes")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise UnreadableTextError(line, "the file is not UTF-8 text", "save it as UTF-8") from error
    elif len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise UnreadableTextError(0, f"the file is bigger than {MAX_BYTES} bytes")
    return text


def _json_as_yaml(text: str) -> str:
    """Rewrite what JSON allows and YAML readers refuse: tabs between values, escaped surrogate pairs."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text  # not JSON, perhaps YAML: its reader reports the errors
    # In JSON a tab can only stand between values.
    return _SURROGATES.sub(lambda found: found[1] + str(json.loads(f'"{found[2]}"')), text.replace("\t", " "))


def _parse_json(text: str) -> _Json:
    try:
        value: _Json = json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_no_number)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise UnreadableTextError(_NOWHERE, f"the output of the program is not JSON: {error}") from error
    return value


def _int(text: str) -> ScalarNode:
    return ScalarNode(_NOWHERE, text, "int", plain=True)


def _float(text: str) -> ScalarNode:
    return ScalarNode(_NOWHERE, text, "float", plain=True)


def _no_number(text: str) -> NoReturn:
    raise UnreadableTextError(_NOWHERE, f"{text} is no number that a configuration can have")


def _too_deep() -> UnreadableTextError:
    return UnreadableTextError(_NOWHERE, f"nested deeper than {MAX_DEPTH} levels")


class _JsonComposer:
    """A maker of nodes from decoded JSON, which counts them."""

    def __init__(self) -> None:
        self._count = 0

    def compose(self, value: _Json, depth: int) -> Node:
        """Return the node of a value. Raise UnreadableTextError past the bounds."""
        self._count += 1
        if self._count > MAX_NODES:
            raise UnreadableTextError(_NOWHERE, f"more than {MAX_NODES} values", "generate less")
        if depth > MAX_DEPTH:
            raise _too_deep()
        if isinstance(value, str):
            return ScalarNode(_NOWHERE, unicode_text(value, _NOWHERE), "str", plain=False)
        if isinstance(value, dict):
            keys: Iterable[str] = value
            entries = {unicode_text(key, _NOWHERE): self.compose(value[key], depth + 1) for key in keys}
            return MappingNode(_NOWHERE, entries, dict.fromkeys(entries, _NOWHERE))
        if isinstance(value, list):
            return SequenceNode(_NOWHERE, tuple(self.compose(item, depth + 1) for item in value))
        if isinstance(value, ScalarNode):
            return value
        return _NULL if value is None else _TRUE if value else _FALSE
