"""Files of variables and secrets that are given for a run, in YAML or JSON.

A file is a map by name, or a list of entries that have a name. A variable is a text, or has `values`; a secret is
a text, which is a variable of the same name too, or has `data`. `parent_path` says where in the tree it belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from runstream.names import RULE, valid_name
from runstream.runconfig.cursor import Cursor
from runstream.runconfig.fields import Field, FieldTable
from runstream.runconfig.nodes import Mapping, Sequence, describe
from runstream.runconfig.problems import Problem, Problems, shown
from runstream.runconfig.reading import read_nodes
from runstream.runconfig.variables import LEAST_MASKED_BYTES, Secret, Variable, VariableValue
from runstream.runconfig.when import decode_when

T = TypeVar("T")
_NAMED: FieldTable = {
    "name": Field("text", "what it is called"),
    "parent_path": Field("text", "where in the tree it belongs"),
    "text": Field("text", "what it stands for"),
}
_VARIABLE: FieldTable = _NAMED | {"values": Field("anything", "the first whose `when` matches decides")}
_SECRET: FieldTable = _NAMED | {"data": Field("anything", "texts by the names of its fields")}
_VALUE: FieldTable = {
    "secret_name": Field("text", "which secret"),
    "secret_var": Field("text", "which field of it"),
    "when": Field("when", "for which branches, tags and refs"),
}
TEXT_FIELD = "text"
"""The field of a secret that is only a text."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Variables and secrets; of equal ones the first counts."""

    variables: tuple[Variable, ...] = ()
    secrets: tuple[Secret, ...] = field(default=(), repr=False)

    @property
    def warnings(self) -> list[Problem]:
        """Secrets that are too short to be masked in logs. An empty one has nothing to hide."""
        return [
            Problem(
                f"secret {secret.name}" + ("" if _plain(secret) else f", field {name}"),
                0,
                "it is too short to be masked in logs",
                f"only secrets of at least {LEAST_MASKED_BYTES} bytes are masked",
            )
            for secret in self.secrets
            for name, text in secret.data.items()
            if 0 < len(text.strip().encode(errors="replace")) < LEAST_MASKED_BYTES
        ]


def read_inputs(
    variables: dict[str, str], variable_files: Iterable[tuple[str, str]], secret_files: Iterable[tuple[str, str]]
) -> Inputs:
    """What was given: single variables go before files, a later file before an earlier one.

    Each file is its name and its text. Raises ConfigError with everything that is wrong with one of them.
    """
    single = [Variable(name, text=text) for name, text in variables.items()]
    read = [parse_variables(text, name) for name, text in variable_files]
    secrets = [one for name, text in reversed([*secret_files]) for one in parse_secrets(text, name)]
    plain = [Variable(s.name, s.parent_path, values=(VariableValue(s.name, TEXT_FIELD),)) for s in secrets if _plain(s)]
    return Inputs((*single, *(one for file in reversed(read) for one in file), *plain), tuple(secrets))


def parse_variables(text: bytes | str, source: str) -> list[Variable]:
    """The variables that a file gives. Raises ConfigError with everything that is wrong with it."""
    return _parse(text, source, _variable)


def parse_secrets(text: bytes | str, source: str) -> list[Secret]:
    """The secrets that a file gives. Raises ConfigError with everything that is wrong with it."""
    return _parse(text, source, _secret)


def _plain(secret: Secret) -> bool:
    return [*secret.data] == [TEXT_FIELD]


def _parse(text: bytes | str, source: str, decode: Callable[[str, Cursor], T]) -> list[T]:
    node = read_nodes(text, source)
    if node is None:
        return []
    problems = Problems()
    found = [decode(name, place) for name, place in _entries(Cursor(node, "", problems, 1))]
    problems.raise_if_any(source)
    return found


def _entries(top: Cursor) -> Iterator[tuple[str, Cursor]]:
    if not isinstance(top.node, Sequence):
        yield from top.entries()
        return
    for place in top.items():
        name = place.node.entries.get("name") if isinstance(place.node, Mapping) else None
        if name is None:
            place.wrong(f"expected a map with a name, found {describe(place.node)}")
            continue
        yield place.fields(_VARIABLE | _SECRET).text("name"), place


def _variable(name: str, place: Cursor) -> Variable:
    if not isinstance(place.node, Mapping):
        return Variable(name, text=place.text())
    fields = place.fields(_VARIABLE, strict=True)
    _check_name(name, place)
    if fields.get("text") is not None:
        return Variable(name, fields.text("parent_path"), text=fields.text("text"))
    values = tuple(_value(one) for one in fields.items("values"))
    if not values:
        place.wrong(f"variable {shown(name)} has neither text nor values", "values: [{secret_name: …, secret_var: …}]")
    return Variable(name, fields.text("parent_path"), values=values)


def _value(place: Cursor) -> VariableValue:
    fields = place.fields(_VALUE, strict=True)
    for needed in ("secret_name", "secret_var"):
        if not fields.text(needed):
            place.wrong(f"a value has no {needed}", "a value names a secret and one of its fields")
    return VariableValue(fields.text("secret_name"), fields.text("secret_var"), decode_when(fields))


def _secret(name: str, place: Cursor) -> Secret:
    if not isinstance(place.node, Mapping):
        return Secret(name, {TEXT_FIELD: place.text()})
    if "data" not in place.node.entries and "name" not in place.node.entries:
        _check_name(name, place)
        return Secret(name, {key: value.text() for key, value in place.entries()})
    fields = place.fields(_SECRET, strict=True)
    _check_name(name, place)
    data = fields.get("data")
    texts = {TEXT_FIELD: fields.text("text")} if data is None else {key: value.text() for key, value in data.entries()}
    return Secret(name, texts, fields.text("parent_path"))


def _check_name(name: str, place: Cursor) -> None:
    if not valid_name(name):
        place.wrong(f"{shown(name)} is not a name", RULE)
