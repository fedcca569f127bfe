"""Everything that reads runs (docs/reference/api.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from runstream.commits import parse_point
from runstream.database.runs import DEFAULT_LIMIT, MAX_LIMIT, RunPage, RunQuery
from runstream.domain.run import RunPhase
from runstream.errors import BadRequestError
from runstream.events.run import RunResult
from runstream.gateway.cursors import mixed_cursor, next_cursor, query_of
from runstream.gateway.parts import (
    AtLeast,
    Flag,
    Parts,
    answer,
    documented,
    flag,
)
from runstream.gateway.ports import ReadRun
from runstream.gateway.shapes import RunAnswer, RunsAnswer
from runstream.gateway.tokens import token_of
from runstream.gateway.views import run_answer, run_summary
from runstream.ids import require_uuid
from runstream.limits import MAX_WORD_BYTES, require_group_size

_MAX_CURSOR_BYTES = 1 << 15
"""A cursor holds the groups and names that its list is of."""
Phases = Annotated[list[RunPhase], Query(description="one of these phases; repeated")]
Results = Annotated[list[RunResult], Query(description="one of these results; repeated")]
Cursor = Annotated[
    str, Query(max_length=_MAX_CURSOR_BYTES, description="of the page before; it says itself which runs the list is of")
]
ChangeGroups = Annotated[
    list[Annotated[str, Field(max_length=MAX_WORD_BYTES)]],
    Query(description="names for a token that actions may be sent with; repeated"),
]
At = Annotated[
    str, Query(max_length=MAX_WORD_BYTES, description="as it was then: a time with its zone, or a position of the log")
]
Groups = Annotated[
    list[Annotated[str, Field(max_length=MAX_WORD_BYTES)]], Query(description="this group or one below it; repeated")
]


def run_routes(parts: Parts) -> APIRouter:
    """Get and list runs."""
    router = APIRouter(tags=["runs"])

    @router.get("/runs", openapi_extra=documented(None, RunsAnswer))
    async def list_runs(
        at_least: AtLeast,
        group: Groups = [],  # noqa: B006  FastAPI copies it
        phase: Phases = [],  # noqa: B006
        result: Results = [],  # noqa: B006
        name: Annotated[str, Query(max_length=MAX_WORD_BYTES, description="runs of this name")] = "",
        waitingapproval: Flag = None,
        lastrun: Flag = None,
        start: Annotated[int, Query(ge=0, lt=1 << 63, description="behind the run of this sequence")] = 0,
        limit: Annotated[
            int, Query(ge=1, lt=1 << 63, description=f"at most {MAX_LIMIT}, whatever is asked for")
        ] = DEFAULT_LIMIT,
        asc: Flag = None,
        cursor: Cursor = "",
    ) -> Response:
        """A page of runs, the latest first unless `asc`."""
        query = RunQuery(
            groups=tuple(group),
            phases=tuple(phase),
            results=tuple(result),
            name=name,
            waiting_approval=flag(waitingapproval),
            last_run=flag(lastrun),
            start=start,
            limit=min(limit, MAX_LIMIT),
            ascending=flag(asc),
        )
        if cursor and group:
            raise mixed_cursor()
        query = query_of(cursor, query) if cursor else query
        page = await parts.reads.runs(query, at_least)
        return _page(page, page.next_start, next_cursor(query, page))

    @router.get("/runs/{run_id}", openapi_extra=documented(None, RunAnswer))
    async def get(
        run_id: str,
        at_least: AtLeast,
        at: At = "",
        changegroup: ChangeGroups = [],  # noqa: B006
    ) -> Response:
        """One run with its tasks, and what it is to do; as it was, with `at`."""
        require_uuid(run_id, "run id")
        if at:
            return _answer(await parts.past.run(run_id, parse_point(at)))
        return _answer(await parts.reads.run(run_id, at_least), changegroup)

    return router


def group_routes(parts: Parts) -> APIRouter:
    """Runs by their group; the group is one escaped segment of the path."""
    router = APIRouter(tags=["runs"])

    @router.get("/runs/group/{escaped_group:path}", openapi_extra=documented(None, RunsAnswer, RunAnswer))
    async def by_group(
        request: Request,
        at_least: AtLeast,
        phase: Phases = [],  # noqa: B006  FastAPI copies it
        result: Results = [],  # noqa: B006
        start: Annotated[int, Query(ge=0, lt=1 << 63, description="behind the run of this number")] = 0,
        limit: Annotated[int, Query(ge=0, lt=1 << 63, description="0 for as many as a page has")] = 0,
        sortdirection: Annotated[str, Query(pattern="^(asc|desc)?$")] = "",
        cursor: Cursor = "",
        changegroup: ChangeGroups = [],  # noqa: B006
    ) -> Response:
        """/runs/group/{escaped group}: its runs. /runs/group/{escaped group}/{counter}: the run of that number."""
        group, counter = _group_and_counter(request)
        if counter is not None:
            return _answer(await parts.reads.run_by_counter(group, counter, at_least), changegroup)
        query = RunQuery(
            groups=(group,),
            phases=tuple(phase),
            results=tuple(result),
            start_counter=start,
            limit=min(limit or MAX_LIMIT, MAX_LIMIT),
            ascending=sortdirection == "asc",
        )
        if cursor and sortdirection:
            raise mixed_cursor()
        query = query_of(cursor, query) if cursor else query
        page = await parts.reads.runs(query, at_least)
        next_start = page.runs[-1].counter if page.next_start is not None else None
        return _page(page, next_start, next_cursor(query, page))

    return router


def _page(page: RunPage, next_start: int | None, cursor: str) -> Response:
    shape = RunsAnswer([run_summary(run) for run in page.runs], next_start, cursor)
    headers = {"X-Agola-HasMore": str(bool(cursor)).lower(), "X-Agola-Cursor": cursor}
    return answer(shape, headers=headers)


def _answer(read: ReadRun, names: Sequence[str] = ()) -> Response:
    record = read.record
    shape = run_answer(record.run, read.config, record.executor_tasks)
    token = token_of(names, record.run.id, record.head.version)
    return answer(msgspec.structs.replace(shape, change_groups_update_tokens=token) if token else shape)


def _group_and_counter(request: Request) -> tuple[str, int | None]:
    """The path as it was sent tells an escaped group from what follows it."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    segments = raw.decode("latin-1").partition("/runs/group/")[2].split("/")
    if len(segments) == 1:
        return require_group_size(unquote(segments[0])), None
    number = segments[1]
    if len(segments) > 2 or not number.isascii() or not number.isdigit() or len(number) > 18:
        raise BadRequestError(
            f"{'/'.join(segments[1:])[:80]!r} is not a run number",
            code="invalidRunNumber",
            hint="the path is /runs/group/{group}/{number}, the slashes of the group escaped as %2F",
        )
    return require_group_size(unquote(segments[0])), int(number)
