"""The events of a variable of a project or project group."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from runstream.events.event import DomainEvent
from runstream.events.secret import TreePlace


class NamePattern(Struct, frozen=True, gc=False):
    """A name, or a regular expression (RE2) that is searched for in a name."""

    type: Literal["simple", "regexp"]
    match: str


class NamePatterns(Struct, frozen=True, gc=False):
    """Patterns of included names, and of names excluded from these."""

    include: tuple[NamePattern, ...]
    exclude: tuple[NamePattern, ...]


class ValueCondition(Struct, frozen=True, gc=False):
    """For which branches, tags and refs a value is meant."""

    branch: NamePatterns | None
    tag: NamePatterns | None
    ref: NamePatterns | None


class SecretValue(Struct, frozen=True, gc=False):
    """A value of a variable: a text of a secret."""

    secret_name: str
    secret_var: str
    """A key of the secret."""
    when: ValueCondition | None
    """None for a value that is meant for every ref."""


class VariableCreated(DomainEvent, frozen=True):
    """A variable was created."""

    name: str
    parent: TreePlace
    values: tuple[SecretValue, ...]
    """The first whose condition matches decides."""


class VariableRenamed(DomainEvent, frozen=True):
    """The variable got another name."""

    name: str


class VariableValuesReplaced(DomainEvent, frozen=True):
    """The variable got other values."""

    values: tuple[SecretValue, ...]


class VariableDeleted(DomainEvent, frozen=True):
    """The variable was deleted."""


VariableEvent = VariableCreated | VariableRenamed | VariableValuesReplaced | VariableDeleted
VARIABLE_EVENTS: tuple[type[DomainEvent], ...] = get_args(VariableEvent)
