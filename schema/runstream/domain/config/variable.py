"""A variable: texts of secrets to choose from by branch, tag or ref, for runs below a project or a group."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.domain.config.fitting import Claim, Reference, existing, require_new
from runstream.events.secret import TreePlace
from runstream.events.variable import (
    SecretValue,
    VariableCreated,
    VariableDeleted,
    VariableEvent,
    VariableRenamed,
    VariableValuesReplaced,
)


class StoredVariable(Struct, frozen=True, gc=False):
    """A variable."""

    id: str
    name: str
    parent: TreePlace
    values: tuple[SecretValue, ...]
    created_at: datetime
    updated_at: datetime

    def claims(self) -> Iterator[Claim]:
        """Yield its name, which no other variable of its parent may have."""
        yield "variable", self.parent.id, self.name

    def references(self) -> Iterator[Reference]:
        """Yield its parent, which has to exist; its secrets need not."""
        yield self.parent.kind, self.parent.id


def evolve_variable(
    variable: StoredVariable | None, key: str, event: VariableEvent, at: datetime
) -> StoredVariable | None:
    """Return the variable after an event; None once deleted. Raises Unfit."""
    if isinstance(event, VariableCreated):
        require_new(variable, key)
        return StoredVariable(key, event.name, event.parent, event.values, at, at)
    variable = existing(variable, key)
    match event:
        case VariableRenamed(name):
            return replace(variable, name=name, updated_at=at)
        case VariableValuesReplaced(values):
            return replace(variable, values=values, updated_at=at)
        case VariableDeleted():
            return None
        case _:
            assert_never(event)
