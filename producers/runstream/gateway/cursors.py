"""Cursors of lists of runs: where the next page begins, and which runs the list is of. Opaque to clients."""

from __future__ import annotations

import base64
from dataclasses import replace

import msgspec

from runstream.database.runs import RunPage, RunQuery
from runstream.domain.run import RunPhase
from runstream.errors import BadRequestError
from runstream.events.run import RunResult


class _Cursor(msgspec.Struct, omit_defaults=True):
    groups: list[str] = []
    phases: list[RunPhase] = []
    results: list[RunResult] = []
    name: str = ""
    waiting_approval: bool = False
    last_run: bool = False
    ascending: bool = False
    start: int = 0


def next_cursor(query: RunQuery, page: RunPage) -> str:
    """The cursor of the page behind this one; empty when there is none."""
    if page.next_start is None:
        return ""
    cursor = _Cursor(
        groups=list(query.groups),
        phases=list(query.phases),
        results=list(query.results),
        name=query.name,
        waiting_approval=query.waiting_approval,
        last_run=query.last_run,
        ascending=query.ascending,
        start=page.next_start,
    )
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode()


def query_of(cursor: str, given: RunQuery) -> RunQuery:
    """What the cursor asks for; the limit is that of the request, which says nothing else. Raises BadRequestError."""
    if replace(given, limit=1, groups=()) != RunQuery(limit=1):
        raise mixed_cursor()
    try:
        found = msgspec.json.decode(base64.b64decode(cursor, altchars=b"-_", validate=True), type=_Cursor)
        if not 0 <= found.start < 1 << 63 or (given.groups and found.groups != list(given.groups)):
            raise ValueError("it is of another list")
    except (ValueError, RecursionError) as error:
        raise BadRequestError(
            f"{cursor[:80]!r} is not a cursor of this list",
            code="invalidCursor",
            hint="take it from the header X-Agola-Cursor, or the field cursor, of the page before",
        ) from error
    return RunQuery(
        groups=tuple(found.groups),
        phases=tuple(found.phases),
        results=tuple(found.results),
        name=found.name,
        waiting_approval=found.waiting_approval,
        last_run=found.last_run,
        start=found.start,
        limit=given.limit,
        ascending=found.ascending,
    )


def mixed_cursor() -> BadRequestError:
    """The error for a cursor that came with what it says itself."""
    return BadRequestError(
        "a cursor goes with no other parameter than limit",
        code="invalidCursor",
        hint="it says itself which runs the list is of, and in which order",
    )
