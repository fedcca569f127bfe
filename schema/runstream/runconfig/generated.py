"""From the JSON that a jsonnet or starlark program made to nodes, within the bounds that hold for files.

Its lines mean nothing to who wrote the program, so all nodes are on line 0. Numbers keep their text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NoReturn

from runstream.runconfig.bounds import MAX_DEPTH, MAX_NODES, RefusedError, sound
from runstream.runconfig.nodes import Mapping, Node, Scalar, Sequence

_NOWHERE = 0
_NULL = Scalar(_NOWHERE, "null", "null", plain=True)
_TRUE = Scalar(_NOWHERE, "true", "bool", plain=True)
_FALSE = Scalar(_NOWHERE, "false", "bool", plain=True)

_Json = str | bool | Scalar | list["_Json"] | dict[str, "_Json"] | None


def compose_generated(text: str) -> Node:
    """The node that the text is. Raises RefusedError."""
    return _Composer().compose(_parsed(text), 0)


def _parsed(text: str) -> _Json:
    try:
        value: _Json = json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_no_number)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise RefusedError(_NOWHERE, f"what the program made is not JSON: {error}") from error
    return value


def _int(text: str) -> Scalar:
    return Scalar(_NOWHERE, text, "int", plain=True)


def _float(text: str) -> Scalar:
    return Scalar(_NOWHERE, text, "float", plain=True)


def _no_number(text: str) -> NoReturn:
    raise RefusedError(_NOWHERE, f"{text} is no number that a configuration can hold")


def _too_deep() -> RefusedError:
    return RefusedError(_NOWHERE, f"nested deeper than {MAX_DEPTH} levels")


class _Composer:
    """Counts what it makes."""

    def __init__(self) -> None:
        self._count = 0

    def compose(self, value: _Json, depth: int) -> Node:
        """The node of a value."""
        self._count += 1
        if self._count > MAX_NODES:
            raise RefusedError(_NOWHERE, f"more than {MAX_NODES} values", "generate less")
        if depth > MAX_DEPTH:
            raise _too_deep()
        if isinstance(value, str):
            return Scalar(_NOWHERE, sound(value, _NOWHERE), "str", plain=False)
        if isinstance(value, dict):
            keys: Iterable[str] = value
            entries = {sound(key, _NOWHERE): self.compose(value[key], depth + 1) for key in keys}
            return Mapping(_NOWHERE, entries, dict.fromkeys(entries, _NOWHERE))
        if isinstance(value, list):
            return Sequence(_NOWHERE, tuple(self.compose(item, depth + 1) for item in value))
        if isinstance(value, Scalar):
            return value
        return _NULL if value is None else _TRUE if value else _FALSE
