"""One thing that was looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from runstream.errors import RunstreamError

Status = Literal["ok", "warning", "problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, how it is, and what to do about it."""

    what: str
    status: Status
    found: str
    todo: str = ""


def judged(what: str, found: str, *, good: bool, todo: str, otherwise: Status = "problem") -> Finding:
    """A finding that is ok when `good`; else `otherwise`, with what to do."""
    return Finding(what, "ok", found) if good else Finding(what, otherwise, found, todo)


async def guarded(what: str, findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    """These findings; when looking fails, a problem that says why instead of the rest."""
    try:
        async for finding in findings:
            yield finding
    except RunstreamError as error:
        yield Finding(what, "problem", error.message, error.hint)
