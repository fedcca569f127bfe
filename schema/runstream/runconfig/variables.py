"""The variables and secrets of a run: the files that give them, and the value of each (rules create-9 and create-10).

Variables and secrets belong to places of a tree: a project, or a group above it. The nearest variable of a name counts.
Its first value whose `when` matches decides, and takes its text from a secret of the variable's own place or one
above: a project's secret never gets into a variable of its group.

A file, in YAML or JSON, is a map by name, or a list of entries with a name. A variable is a text, or has `values`; a
secret is a text, and then also a variable of its name, or has `data`. `parent_path` is its place in the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from runstream.names import RULE, valid_name
from runstream.runconfig.cursor import Cursor
from runstream.runconfig.fields import Field, FieldTable
from runstream.runconfig.nodes import MappingNode, SequenceNode, describe
from runstream.runconfig.problems import ConfigProblems, Problem, quoted
from runstream.runconfig.reading import read_nodes
from runstream.runconfig.refs import RefContext
from runstream.runconfig.when import When, decode_when

LEAST_MASKED_BYTES = 4
"""Shorter secrets are not masked in logs: they occur everywhere."""
T = TypeVar("T")
_NAMED: FieldTable = {
    "name": Field("text", "its name"),
    "parent_path": Field("text", "its place in the tree"),
    "text": Field("text", "its text"),
}
_VARIABLE: FieldTable = _NAMED | {"values": Field("anything", "the first whose `when` matches decides")}
_SECRET: FieldTable = _NAMED | {"data": Field("anything", "texts by the names of its fields")}
_VALUE: FieldTable = {
    "secret_name": Field("text", "a secret"),
    "secret_var": Field("text", "a field of the secret"),
    "when": Field("when", "for which branches, tags and refs"),
}
_TEXT_FIELD = "text"
"""The field of a secret that is just a text."""


@dataclass(frozen=True, slots=True)
class VariableValue:
    """A value of a variable: a field of a secret, for the refs of `when`."""

    secret_name: str
    secret_var: str
    when: When | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable: a text, or values to choose from."""

    name: str
    parent_path: str = ""
    """Its place, such as `org/acme/web`; empty for the root."""
    text: str | None = None
    values: tuple[VariableValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Secret:
    """Secret texts, by the names of its fields."""

    name: str
    data: Mapping[str, str] = field(repr=False)
    parent_path: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The values of `from_variable` in one run."""

    texts: dict[str, str]
    secrets: dict[str, str] = field(repr=False)
    """The texts of secrets, by the names of their variables."""


def resolve(variables: Iterable[Variable], secrets: Sequence[Secret], context: RefContext) -> Resolved:
    """Return the value of each variable that has one."""
    resolved = Resolved({}, {})
    ordered = sorted(secrets, key=_depth)
    for variable in nearest(sorted(variables, key=_depth)):
        if variable.text is not None:
            resolved.texts[variable.name] = variable.text
        elif (text := _secret_text(variable, ordered, context)) is not None:
            resolved.secrets[variable.name] = text
    return resolved


def nearest(variables: Iterable[Variable]) -> list[Variable]:
    """Return the first variable of each name; `variables` are sorted, the nearest place first."""
    found: dict[str, Variable] = {}
    for variable in variables:
        found.setdefault(variable.name, variable)
    return list(found.values())


def matching_secret(value: VariableValue, parent_path: str, secrets: Iterable[Secret]) -> Secret | None:
    """Return the first secret of a value that a variable of this place may use; the nearest in `secrets` come first."""
    return next((s for s in secrets if s.name == value.secret_name and _is_above(s.parent_path, parent_path)), None)


def _secret_text(variable: Variable, secrets: Sequence[Secret], context: RefContext) -> str | None:
    value = next((value for value in variable.values if context.matches(value.when)), None)
    if value is None:
        return None
    secret = matching_secret(value, variable.parent_path, secrets)
    return secret.data.get(value.secret_var) if secret is not None else None


def _is_above(path: str, below: str) -> bool:
    return path in ("", below) or below.startswith(f"{path}/")


def _depth(one: Variable | Secret) -> int:
    """Return a sort key: deeper places are nearer to the project."""
    return -len([element for element in one.parent_path.split("/") if element])


@dataclass(frozen=True, slots=True)
class InputValues:
    """Variables and secrets; the first of a name counts."""

    variables: tuple[Variable, ...] = ()
    secrets: tuple[Secret, ...] = field(default=(), repr=False)

    @property
    def warnings(self) -> list[Problem]:
        """Warnings of secrets that are too short to be masked in logs. An empty one has nothing to hide."""
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
) -> InputValues:
    """Read variables and secrets. Single variables win over files, a later file over an earlier one.

    Each file is its name and its text. Raise ConfigError with all problems of a file.
    """
    single = [Variable(name, text=text) for name, text in variables.items()]
    read = [_parse(text, name, _variable) for name, text in variable_files]
    secrets = [one for name, text in reversed([*secret_files]) for one in _parse(text, name, _secret)]
    plain = [
        Variable(s.name, s.parent_path, values=(VariableValue(s.name, _TEXT_FIELD),)) for s in secrets if _plain(s)
    ]
    return InputValues((*single, *(one for file in reversed(read) for one in file), *plain), tuple(secrets))


def _plain(secret: Secret) -> bool:
    return [*secret.data] == [_TEXT_FIELD]


def _parse(text: str, source: str, decode: Callable[[str, Cursor], T]) -> list[T]:
    node = read_nodes(text, source)
    if node is None:
        return []
    problems = ConfigProblems()
    found = [decode(name, place) for name, place in _entries(Cursor(node, "", problems, 1))]
    problems.raise_if_any(source)
    return found


def _entries(top: Cursor) -> Iterator[tuple[str, Cursor]]:
    if not isinstance(top.node, SequenceNode):
        yield from top.entries()
        return
    for place in top.items():
        name = place.node.entries.get("name") if isinstance(place.node, MappingNode) else None
        if name is None:
            place.error(f"expected a map with a name, found {describe(place.node)}")
            continue
        yield place.fields(_VARIABLE | _SECRET).text("name"), place


def _variable(name: str, place: Cursor) -> Variable:
    if not isinstance(place.node, MappingNode):
        return Variable(name, text=place.text())
    fields = place.fields(_VARIABLE, strict=True)
    _check_name(name, place)
    if fields.get("text") is not None:
        return Variable(name, fields.text("parent_path"), text=fields.text("text"))
    values = tuple(_value(one) for one in fields.items("values"))
    if not values:
        place.error(f"variable {quoted(name)} has neither text nor values", "values: [{secret_name: …, secret_var: …}]")
    return Variable(name, fields.text("parent_path"), values=values)


def _value(place: Cursor) -> VariableValue:
    fields = place.fields(_VALUE, strict=True)
    for needed in ("secret_name", "secret_var"):
        if not fields.text(needed):
            place.error(f"a value has no {needed}", "a value names a secret and one of its fields")
    return VariableValue(fields.text("secret_name"), fields.text("secret_var"), decode_when(fields))


def _secret(name: str, place: Cursor) -> Secret:
    if not isinstance(place.node, MappingNode):
        return Secret(name, {_TEXT_FIELD: place.text()})
    if "data" not in place.node.entries and "name" not in place.node.entries:
        _check_name(name, place)
        return Secret(name, {key: value.text() for key, value in place.entries()})
    fields = place.fields(_SECRET, strict=True)
    _check_name(name, place)
    data = fields.get("data")
    texts = {_TEXT_FIELD: fields.text("text")} if data is None else {key: value.text() for key, value in data.entries()}
    return Secret(name, texts, fields.text("parent_path"))


def _check_name(name: str, place: Cursor) -> None:
    if not valid_name(name):
        place.error(f"{quoted(name)} is not a name", RULE)
