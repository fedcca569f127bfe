"""Everything that reads runs (domain h.6)."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.commits import parse_point
from runstream.database.runs import DEFAULT_LIMIT, MAX_LIMIT, RunQuery
from runstream.domain.run import RunPhase
from runstream.errors import BadRequestError
from runstream.events.run import RunResult
from runstream.gateway.parts import (
    AtLeast,
    AtLeastHeader,
    Flag,
    Parts,
    answer,
    documented,
    flag,
    parse_positions,
)
from runstream.gateway.ports import ReadRun
from runstream.gateway.shapes import RunAnswer, RunsAnswer
from runstream.gateway.views import run_answer, run_summary
from runstream.ids import require_uuid

Phases = Annotated[list[RunPhase], Query(description="one of these phases; repeated")]
Results = Annotated[list[RunResult], Query(description="one of these results; repeated")]
At = Annotated[str, Query(description="as it was then: a time with its zone, or a position of the log")]
Groups = Annotated[list[str], Query(description="this group or one below it; repeated")]


def run_routes(parts: Parts) -> APIRouter:
    """Get and list runs."""
    router = APIRouter(tags=["runs"])

    @router.get("/runs", openapi_extra=documented(None, RunsAnswer))
    async def list_runs(
        group: Groups = [],  # noqa: B006  FastAPI copies it
        phase: Phases = [],  # noqa: B006
        result: Results = [],  # noqa: B006
        lastrun: Flag = None,
        start: Annotated[int, Query(ge=0, description="behind the run of this sequence")] = 0,
        limit: Annotated[int, Query(ge=1, description=f"at most {MAX_LIMIT}, whatever is asked for")] = DEFAULT_LIMIT,
        asc: Flag = None,
        at_least: AtLeast = "",
        runstream_position: AtLeastHeader = "",
    ) -> Response:
        """A page of runs, the latest first unless `asc`."""
        query = RunQuery(
            groups=group,
            phases=phase,
            results=result,
            last_run=flag(lastrun),
            start=start,
            limit=min(limit, MAX_LIMIT),
            ascending=flag(asc),
        )
        page = await parts.reads.runs(query, parse_positions(at_least or runstream_position))
        return answer(RunsAnswer([run_summary(run) for run in page.runs], page.next_start))

    @router.get("/runs/{run_id}", openapi_extra=documented(None, RunAnswer))
    async def get(run_id: str, at: At = "", at_least: AtLeast = "", runstream_position: AtLeastHeader = "") -> Response:
        """One run with its tasks, and what it is to do; as it was, with `at`."""
        require_uuid(run_id, "run id")
        if at:
            return _answer(await parts.past.run(run_id, parse_point(at)))
        return _answer(await parts.reads.run(run_id, parse_positions(at_least or runstream_position)))

    return router


def group_routes(parts: Parts) -> APIRouter:
    """Runs by their group; the group is one escaped segment of the path."""
    router = APIRouter(tags=["runs"])

    @router.get("/runs/group/{escaped_group:path}", openapi_extra=documented(None, RunsAnswer))
    async def by_group(
        request: Request,
        phase: Phases = [],  # noqa: B006  FastAPI copies it
        result: Results = [],  # noqa: B006
        start: Annotated[int, Query(ge=0, description="behind the run of this number")] = 0,
        limit: Annotated[int, Query(ge=0, description="0 for as many as a page has")] = 0,
        sortdirection: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
        at_least: AtLeast = "",
        runstream_position: AtLeastHeader = "",
    ) -> Response:
        """/runs/group/{escaped group}: its runs. /runs/group/{escaped group}/{counter}: the run of that number."""
        group, counter = _group_and_counter(request)
        position = parse_positions(at_least or runstream_position)
        if counter is not None:
            return _answer(await parts.reads.run_by_counter(group, counter, position))
        behind = (await parts.reads.run_by_counter(group, start, position)).record.run.sequence if start else 0
        query = RunQuery(
            groups=(group,),
            phases=phase,
            results=result,
            start=behind,
            limit=min(limit or MAX_LIMIT, MAX_LIMIT),
            ascending=sortdirection == "asc",
        )
        page = await parts.reads.runs(query, position)
        shape = RunsAnswer([run_summary(run) for run in page.runs], page.next_start)
        return answer(shape, headers={"X-Agola-HasMore": str(page.next_start is not None).lower()})

    return router


def _answer(read: ReadRun) -> Response:
    return answer(run_answer(read.record.run, read.config, read.record.executor_tasks))


def _group_and_counter(request: Request) -> tuple[str, int | None]:
    """The path as it was sent tells an escaped group from what follows it."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    segments = raw.decode("latin-1").partition("/runs/group/")[2].split("/")
    if len(segments) == 1:
        return unquote(segments[0]), None
    number = segments[1]
    if len(segments) > 2 or not number.isascii() or not number.isdigit() or len(number) > 18:
        raise BadRequestError(
            f"{'/'.join(segments[1:])[:80]!r} is not a run number",
            code="invalidRunNumber",
            hint="the path is /runs/group/{group}/{number}, the slashes of the group escaped as %2F",
        )
    return unquote(segments[0]), int(number)
