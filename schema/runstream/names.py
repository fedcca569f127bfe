"""Which names users may give to what they create (rule create-11), and which texts can be shown as a name."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 40
_NAME = re.compile(r"[A-Za-z0-9]|[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*")
_UUID = re.compile(r"(?i:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})")
RULE = (
    f"a name has 1 to {MAX_CHARACTERS} letters and digits, with single '-' between them, begins with a letter, and is "
    "not a UUID"
)


_ID = re.compile(rf"(?i:urn:uuid:)?({_UUID.pattern})|\{{({_UUID.pattern})\}}")


def id_of(reference: str) -> str:
    """Return the canonical id that a reference is (in any usual form of a UUID); empty for a name."""
    found = _ID.fullmatch(reference)
    if found is None:
        return ""
    digits = (found[1] or found[2]).replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def project_of(group: str) -> str:
    """Return the project or the user whose group this is: its first two parts, such as `/project/web`."""
    return "/".join(group.split("/")[:3])


def numbered_name(group: str, counter: int, run_id: str) -> str:
    """Return the name by which commands find a run: `/project/web/12`, or its id while it has no number."""
    return f"{project_of(group)}/{counter}" if counter else run_id


def valid_name(name: str) -> bool:
    """Return whether something may have this name. Text that looks like an id is not a name: references may be
    either."""
    return len(name) <= MAX_CHARACTERS and _NAME.fullmatch(name) is not None and not _UUID.fullmatch(name)


_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move the cursor, break the line or reverse text: C0, DEL, C1, separators, bidi controls."""
_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters that are invisible."""
SHOWN_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$"
"""The characters of a name that can be shown, for JSON Schema."""


def name_problem(name: str) -> str:
    """Return what keeps a text from being shown as a name, such as `has the character \\x1b (U+001B)`; "" for nothing.

    The empty string is accepted; callers check for it.
    """
    if (found := _UNSHOWN.search(name)) is not None:
        character = found[0]
        return f"has the character {repr(character)[1:-1]} (U+{ord(character):04X}), which is not shown as a letter"
    if name and all(c.isspace() or c in _FILLERS or unicodedata.category(c) == "Cf" for c in name):
        return "has only blanks"
    return ""
