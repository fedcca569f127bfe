"""Which names users may give to what they create (domain g.3)."""

from __future__ import annotations

import re

MAX_CHARACTERS = 40
_NAME = re.compile(r"[A-Za-z0-9]|[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*")
_UUID = re.compile(r"(?i:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})")
RULE = (
    f"a name has 1 to {MAX_CHARACTERS} letters and digits, with single '-' between them, begins with a letter, and is "
    "not a UUID"
)


def valid_name(name: str) -> bool:
    """Whether something may be called so; what looks like an id is none, since references may be either."""
    return len(name) <= MAX_CHARACTERS and _NAME.fullmatch(name) is not None and not _UUID.fullmatch(name)
