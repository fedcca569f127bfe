"""Copies of a state with some fields changed: `dataclasses.replace` for slotted dataclasses, in a third of the time.

Folding is little else, so this is where much of a scheduler's time goes. Setting the fields of a frozen object one by
one is slow. So the copy begins as an object of a twin class, which has the same slots and is not frozen, and then
becomes one of the state's own class. A dataclass with a `__post_init__`, with fields that are not slots, or with only
one field is none for this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, make_dataclass
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

S = TypeVar("S")

if TYPE_CHECKING:
    from dataclasses import replace as replace  # type checkers know its arguments
else:

    def replace(state: S, **changes: object) -> S:
        """A copy of the state with these fields changed. Raises AttributeError for a field that it does not have."""
        kind = type(state)
        values_of, twin = _twin(kind)
        copy = twin(*values_of(state))
        for name, value in changes.items():
            setattr(copy, name, value)
        copy.__class__ = kind
        return copy


@cache
def _twin(kind: type) -> tuple[Callable[[object], tuple[Any, ...]], Callable[..., Any]]:
    """What reads all fields of such an object, and what makes a thawed one of them."""
    names = [field.name for field in fields(kind)]
    return attrgetter(*names), make_dataclass(f"Thawed{kind.__name__}", names, slots=True)
