"""Which variables a run has, and what they stand for (rules create-9 and create-10).

Variables and secrets belong to places of a tree: a project, the groups above it. The nearest variable of a name
counts. Of its values the first whose `when` matches decides, and only a secret of the variable's own place, or of one
above it, can give the text: a project's secret never gets into a variable of its group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from runstream.runconfig.environment import RefContext
from runstream.runconfig.when import When, match_when

LEAST_MASKED_BYTES = 4
"""Shorter secrets are not masked in logs: they would be found everywhere."""


@dataclass(frozen=True, slots=True)
class VariableValue:
    """One of the values of a variable: a field of a secret, for the refs that `when` names."""

    secret_name: str
    secret_var: str
    when: When | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable: a text, or the values of which one is chosen."""

    name: str
    parent_path: str = ""
    """Where it belongs, such as `org/acme/web`; empty for above everything."""
    text: str | None = None
    values: tuple[VariableValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Secret:
    """Texts that nobody may see, by the names of its fields."""

    name: str
    data: Mapping[str, str] = field(repr=False)
    parent_path: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What `from_variable` gives in one run."""

    texts: dict[str, str]
    secrets: dict[str, str] = field(repr=False)
    """The texts that came from secrets, by the names of their variables."""


def resolve(variables: Iterable[Variable], secrets: Sequence[Secret], context: RefContext) -> Resolved:
    """What each variable stands for; one of which no value can be had is not there."""
    resolved = Resolved({}, {})
    ordered = sorted(secrets, key=_depth)
    for variable in nearest(sorted(variables, key=_depth)):
        if variable.text is not None:
            resolved.texts[variable.name] = variable.text
        elif (text := _secret_text(variable, ordered, context)) is not None:
            resolved.secrets[variable.name] = text
    return resolved


def nearest(variables: Iterable[Variable]) -> list[Variable]:
    """The first of each name; `variables` are in the order of the tree, the nearest first."""
    found: dict[str, Variable] = {}
    for variable in variables:
        found.setdefault(variable.name, variable)
    return list(found.values())


def matching_secret(value: VariableValue, parent_path: str, secrets: Iterable[Secret]) -> Secret | None:
    """The first secret that a value of a variable of this place may use; `secrets` are in the order of the tree."""
    return next((s for s in secrets if s.name == value.secret_name and _is_above(s.parent_path, parent_path)), None)


def _secret_text(variable: Variable, secrets: Sequence[Secret], context: RefContext) -> str | None:
    value = next(_matching(variable.values, context), None)
    if value is None:
        return None
    secret = matching_secret(value, variable.parent_path, secrets)
    return secret.data.get(value.secret_var) if secret is not None else None


def _matching(values: Iterable[VariableValue], context: RefContext) -> Iterator[VariableValue]:
    for value in values:
        if match_when(value.when, context.ref_type, context.branch, context.tag, context.ref):
            yield value


def _is_above(path: str, below: str) -> bool:
    return path in ("", below) or below.startswith(f"{path}/")


def _depth(one: Variable | Secret) -> int:
    """Deeper places are nearer to the project."""
    return -len([element for element in one.parent_path.split("/") if element])
