"""On which tasks a task depends, in each of the ways it can be written (rule config-9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from runstream.events.run_config import Condition
from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.fields import DEPEND
from runstream.runconfig.foreign import FOREIGN_DEPEND
from runstream.runconfig.nodes import Mapping, Scalar, Sequence, describe
from runstream.runconfig.problems import nearest, shown

CONDITIONS: tuple[Condition, ...] = get_args(Condition)
_HINT = "write a task's name, {task: NAME, conditions: [...]} or {NAME: [conditions]}"


@dataclass(frozen=True, slots=True)
class DependSpec:
    """A parent, as it was written."""

    task: str
    conditions: tuple[Condition, ...]
    """Empty when none were given, which means on_success."""


def decode_depends(fields: Fields) -> list[tuple[Cursor, DependSpec]]:
    """The field `depends`, each entry with its place."""
    found = ((place, _depend(place)) for place in fields.items("depends"))
    return [(place, depend) for place, depend in found if depend is not None]


def _depend(place: Cursor) -> DependSpec | None:
    match place.node:
        case Scalar(kind="str", text=task):
            return DependSpec(task, ())
        case Mapping(entries=entries):
            keys = list(entries)
            if len(keys) == 1 and isinstance(entries[keys[0]], Sequence):
                return DependSpec(keys[0], _conditions(place.at(place.node, keys[0])))
            return _full(place)
        case node:
            place.wrong(f"unsupported depend entry format: {describe(node)}", _HINT)
            return None


def _full(place: Cursor) -> DependSpec | None:
    before = len(place.problems)
    fields = place.fields(DEPEND, foreign=FOREIGN_DEPEND)
    if fields.get("task") is None and len(place.problems) > before:
        return None
    if fields.get("task") is None:
        place.wrong("unsupported depend entry format: no task is named", _HINT)
        return None
    conditions = fields.get("conditions")
    return DependSpec(fields.strict_text("task"), () if conditions is None else _conditions(conditions))


def _conditions(place: Cursor) -> tuple[Condition, ...]:
    found: list[Condition] = []
    for item in place.items():
        text = item.strict_text()
        condition = next((known for known in CONDITIONS if known == text), None)
        if condition is not None:
            found.append(condition)
        elif text is not None:
            item.wrong(f"unknown condition {shown(text)}", nearest(text, CONDITIONS))
    return tuple(found)
