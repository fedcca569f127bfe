"""Many keys in one question."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ARRAY, ColumnElement, Text, func, literal


def any_of(keys: Iterable[str]) -> ColumnElement[str]:
    """Any of these keys: one array, however many they are."""
    return func.any(literal(sorted(keys), ARRAY(Text)))
