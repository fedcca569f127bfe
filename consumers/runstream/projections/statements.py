"""The set-based statements: one for each table and batch, its rows given as one array for each column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from runstream.database.rows import Row
from runstream.tables import JsonText

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def upsert(table: Table, columns: Sequence[str]) -> str:
    """Insert the rows; one whose key is there replaces what it was. A row that is only its key stays as it is."""
    key = [column.name for column in table.primary_key]
    changed = [name for name in columns if name not in key]
    assignments = ", ".join(f'"{name}" = excluded."{name}"' for name in changed)
    return f"{_insert(table, columns)} ON CONFLICT ({_listed(key)}) DO UPDATE SET {assignments}"


def insert_new(table: Table, columns: Sequence[str]) -> str:
    """Insert the rows whose key is not there yet; the others never change."""
    return f"{_insert(table, columns)} ON CONFLICT DO NOTHING"


def by_columns(rows: Iterable[Row]) -> list[tuple[object, ...]]:
    """The arguments of a set-based statement: the rows' values, column by column."""
    return list(zip(*rows, strict=True))


def _insert(table: Table, columns: Sequence[str]) -> str:
    arrays = ", ".join(f"${index}::{_array(table.c[name])}" for index, name in enumerate(columns, 1))
    values = ", ".join(_value(table.c[name]) for name in columns)
    names = _listed(columns)
    # Names and types are those of runstream.tables; values travel as parameters.
    return f"INSERT INTO {table.name} ({names}) SELECT {values} FROM unnest({arrays}) AS rows ({names})"  # noqa: S608


def _array(column: Column[object]) -> str:
    return "TEXT[]" if isinstance(column.type, JsonText) else f"{_type(column)}[]"


def _value(column: Column[object]) -> str:
    return f'"{column.name}"::json' if isinstance(column.type, JsonText) else f'"{column.name}"'


def _type(column: Column[object]) -> str:
    return column.type.compile(_DIALECT).partition(" COLLATE")[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
