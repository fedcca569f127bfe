"""Copies of a state with some fields changed: `dataclasses.replace` for slotted dataclasses, in half the time.

Folding is little else, so this is where much of a scheduler's time goes. Fields are copied slot by slot instead of
being named to `__init__`, so a dataclass with a `__post_init__`, with fields that are not slots, or with only one
field is none for this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

S = TypeVar("S")

if TYPE_CHECKING:
    from dataclasses import replace as replace  # type checkers know its arguments
else:

    def replace(state: S, **changes: object) -> S:
        """A copy of the state with these fields changed. Raises KeyError for a field that it does not have."""
        kind = type(state)
        values_of, setters, setter_of = _slots(kind)
        copy = object.__new__(kind)
        for set_slot, value in zip(setters, values_of(state)):  # noqa: B905 - they are equally many, and this is hot
            set_slot(copy, value)
        for name, value in changes.items():
            setter_of[name](copy, value)
        return copy


Setter = Callable[[object, object], None]


@cache
def _slots(kind: type) -> tuple[Callable[[object], tuple[Any, ...]], list[Setter], dict[str, Setter]]:
    """What reads all fields of such an object, and what sets each of them, frozen or not."""
    setter_of: dict[str, Setter] = {field.name: getattr(kind, field.name).__set__ for field in fields(kind)}
    return attrgetter(*setter_of), list(setter_of.values()), setter_of
