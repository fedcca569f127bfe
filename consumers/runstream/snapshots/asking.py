"""What is asked of an export, as people and URLs write it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import get_args

from runstream.commits import LogPosition
from runstream.errors import BadRequestError
from runstream.snapshots.manifest import ObjectKind

_POSITION = re.compile(r"\d+:\d+(,\d+)*")
KINDS: tuple[ObjectKind, ...] = get_args(ObjectKind)


def parse_until(text: str, *, local: bool) -> LogPosition | datetime | None:
    """A position of the log, a time in UTC, or None for nothing. Raises BadRequestError.

    A time without a zone is local time where `local` says so, and refused elsewhere.
    """
    if not text:
        return None
    if _POSITION.fullmatch(text):
        return LogPosition.parse(text)
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None or local:
            return at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _invalid(text) from error
    raise _invalid(text)


def _invalid(text: str) -> BadRequestError:
    return BadRequestError(
        f"{text[:80]!r} is neither a position nor a time",
        code="invalidUntil",
        hint="a position is like 1:812,40,0,97, a time like 2026-11-23T02:16:40Z",
    )


def parse_kinds(text: str) -> tuple[ObjectKind, ...]:
    """What of the object storage is to come along, separated by commas. Raises BadRequestError."""
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = next((part for part in asked if part not in KINDS), None)
    if unknown is not None:
        raise BadRequestError(
            f"{unknown[:80]!r} cannot be exported with the log",
            code="invalidObjectKind",
            hint=f"possible are {' and '.join(KINDS)}",
        )
    return tuple(kind for kind in KINDS if kind in asked)
