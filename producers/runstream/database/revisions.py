"""Which migrations this version has: read from their scripts without running them.

Nearly every start finds a database that is up to date, and Alembic takes a while to load.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runstream.errors import InternalError

HEAD = "head"
"""The last migration, whichever that is."""
_IN_WHEEL = Path(__file__).with_name("migrations")
_IN_SOURCE = Path(__file__).resolve().parents[3] / "migrations"
_REVISION = re.compile(r'^revision(?:: \w+)? = "(\w+)"$', re.MULTILINE)
_DOWN_REVISION = re.compile(r'^down_revision(?:: [\w |]+)? = (?:"(\w+)"|None)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Revisions:
    """The migrations of this version, by their ids."""

    head: str
    """The last one."""
    known: frozenset[str]


def revisions(folder: Path) -> Revisions:
    """Those in a folder of scripts. Raises InternalError when they are not one line of migrations."""
    below: dict[str, str | None] = {}
    for script in sorted((folder / "versions").glob("*.py")):
        text = script.read_text()
        revision, down = _REVISION.search(text), _DOWN_REVISION.search(text)
        if revision is None or down is None:
            raise _incomplete(f"the migration script {script} does not say which one it is")
        below[revision[1]] = down[1]
    heads = set(below) - set(below.values())
    if len(heads) != 1:
        raise _incomplete(f"the migration scripts in {folder} have {len(heads)} ends: {', '.join(sorted(heads))}")
    return Revisions(heads.pop(), frozenset(below))


def script_location() -> Path:
    """Where the scripts are: in the installed package, or at the top of the source tree. Raises InternalError."""
    for path in (_IN_WHEEL, _IN_SOURCE):
        if (path / "env.py").is_file():
            return path
    raise _incomplete(f"the migration scripts are neither in {_IN_WHEEL} nor in {_IN_SOURCE}")


def _incomplete(why: str) -> InternalError:
    return InternalError(why, code="migrationsMissing", hint="the installation is incomplete: install Runstream again")
