"""How rows that the log gives are compared with rows that the database has: key by key, column by column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from runstream.counting import counted
from runstream.database.rows import Row

Key: TypeAlias = tuple[object, ...]
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Difference:
    """One value, or one row, that is not what the log says."""

    table: str
    key: Key
    column: str
    """Empty when the whole row is missing, or is there without a reason."""
    log: object
    database: object

    def __str__(self) -> str:
        key = ", ".join(map(str, self.key))
        place = f"{self.table}[{key}]" + (f".{self.column}" if self.column else "")
        return f"{place}: the log says {_shown(self.log)}, the database {_shown(self.database)}"


MAX_DIFFERENCES = 1000
"""Differences that are listed; more are only counted."""
NO_ROW = "no row"
"""What stands for a row that is not there."""
A_ROW = "a row"
"""What stands for a whole row whose values are not the point."""


@dataclass(slots=True)
class Differences(Generic[D]):
    """What differs: all is counted, the first is listed."""

    count: int = 0
    """How many differences there are."""
    differences: list[D] = field(default_factory=list)
    """The first of them."""

    @property
    def clean(self) -> bool:
        """Whether nothing differs."""
        return self.count == 0

    @property
    def exit_status(self) -> int:
        """0 when it is clean, else 1."""
        return 0 if self.clean else 1

    @property
    def verdict(self) -> str:
        """How many differences there are, for people."""
        return "no difference" if self.clean else counted(self.count, "difference")

    def add(self, differences: Iterable[D]) -> None:
        """Count differences, and list the first."""
        for difference in differences:
            self.count += 1
            if len(self.differences) < MAX_DIFFERENCES:
                self.differences.append(difference)

    def told(self) -> list[str]:
        """A line for each difference that is listed, and one for the others."""
        hidden = self.count - len(self.differences)
        return [*map(str, self.differences), *([f"… and {hidden} more"] if hidden else [])]


@dataclass(slots=True)
class Report(Differences[Difference]):
    """What was compared of log and projection, and what differs."""

    commits: int = 0
    rows: int = 0

    def lines(self) -> list[str]:
        """The report for people."""
        return [*self.told(), f"{counted(self.commits, 'commit')}, {counted(self.rows, 'row')}: {self.verdict}"]


def compare(table: str, log: Mapping[Key, Row], database: Mapping[Key, Row]) -> Iterator[Difference]:
    """What differs between the rows of one table, by key."""
    for key, expected in log.items():
        found = database.get(key)
        if found is None:
            yield Difference(table, key, "", A_ROW, NO_ROW)
        elif found != expected:
            yield from _columns(table, key, expected, found)
    yield from unexpected(table, database.keys() - log.keys())


def unexpected(table: str, keys: Iterable[Key]) -> Iterator[Difference]:
    """Rows that the log does not know."""
    for key in sorted(keys, key=str):
        yield Difference(table, key, "", NO_ROW, A_ROW)


def _columns(table: str, key: Key, expected: Row, found: Row) -> Iterator[Difference]:
    for column, log, database in zip(expected._fields, expected, found, strict=True):
        if log != database:
            yield Difference(table, key, column, log, database)


def _shown(value: object) -> str:
    if value in (NO_ROW, A_ROW):
        return str(value)
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"
