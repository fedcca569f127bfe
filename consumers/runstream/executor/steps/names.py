"""The names of an archive in the making, in a temporary file: memory does not grow with the number of entries."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runstream.errors import BadRequestError

MAX_ENTRIES = 2_000_000
"""Maximum number of entries of an archive. A restore keeps something of each in memory."""
_CACHE_KIB = 4096


class EntryNames:
    """What is known of each entry, by its name. Any thread may use it, one at a time."""

    def __init__(self) -> None:
        self.count = 0
        with _said():
            # Without a name it is a temporary database: in memory at first, then in a file that is removed already.
            self._file = sqlite3.connect("", check_same_thread=False, isolation_level=None)
            for order in (
                f"PRAGMA cache_size = -{_CACHE_KIB}",
                "PRAGMA temp_store = FILE",
                "PRAGMA journal_mode = OFF",
                "CREATE TABLE names (name BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID",
                "BEGIN",
            ):
                self._file.execute(order)

    def find(self, name: str) -> list[Any] | None:
        """Return the fields that were added with a name."""
        with _said():
            row = self._file.execute("SELECT value FROM names WHERE name = ?", (os.fsencode(name),)).fetchone()
        return None if row is None else json.loads(row[0])

    def add(self, name: str, *fields: str | int) -> None:
        """Add a name that is not there yet. Raises BadRequestError for more than `MAX_ENTRIES`."""
        self.count += 1
        require_few(self.count)
        with _said():
            self._file.execute("INSERT INTO names VALUES (?, ?)", (os.fsencode(name), json.dumps(fields)))

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


def require_few(entries: int) -> None:
    """Raise BadRequestError for an archive with more than `MAX_ENTRIES`."""
    if entries > MAX_ENTRIES:
        raise BadRequestError(
            f"the archive has more than {MAX_ENTRIES:,} entries, the maximum",
            code="tooManyEntries",
            hint="select fewer files, or pack them into one file first",
        )


@contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise BadRequestError(
            f"the names of the archive cannot be kept in a temporary file: {error}", code="fileNotReadable"
        ) from error
