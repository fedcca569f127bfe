"""GET /runs/{run_id}/history, /diff and /restart/preview: what became of a run, what differs, what would run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from runstream.api import RestartPreview, Run, RunDiff
from runstream.commits import Position, parse_point
from runstream.database.run_lists import MAX_LIMIT, RunQuery
from runstream.errors import BadRequestError, NotExistError
from runstream.gateway.context import AtLeast, Flag, GatewayContext, WithConfig, documented, flag, json_response
from runstream.gateway.open_access import access_of
from runstream.gateway.requests import CreateRunBody
from runstream.gateway.responses import RunAnswer, RunHistoryAnswer, run_answer
from runstream.gateway.routers import api_router
from runstream.gateway.run_access import Wish, require_run
from runstream.gateway.runs.difference import run_difference
from runstream.gateway.runs.history import MAX_COMMITS, history_answer, write_history
from runstream.gateway.sender import Sender, sender_of
from runstream.gateway.streaming import EVENT_STREAM, EventResponse
from runstream.ids import is_uuid, require_uuid
from runstream.limits import MAX_WORD_BYTES
from runstream.run_states import RunResult

At = Annotated[str, Query(max_length=MAX_WORD_BYTES, description="the run as of this time (with zone) or position")]

_PAGES = 5
"""Pages of runs of the group, and of groups below it, that are searched for the last success."""


def history_routes(context: GatewayContext) -> APIRouter:
    """Return the route of a run's history."""
    router = api_router("runs")

    @router.get("/runs/{run_id}/history", openapi_extra=_described())
    async def history(
        request: Request,
        run_id: str,
        first: Annotated[
            int, Query(ge=1, lt=1 << 63, alias="from", description="number of the first commit, from 1; JSON only")
        ] = 1,
        count: Annotated[
            int, Query(ge=1, le=MAX_COMMITS, description="maximum number of commits; JSON only")
        ] = MAX_COMMITS,
        after: Annotated[
            str,
            Query(max_length=MAX_WORD_BYTES, description="position of the commit to continue behind; events only"),
        ] = "",
        accept: Annotated[str, Header(max_length=MAX_WORD_BYTES, description="text/event-stream for events")] = "",
        last_event_id: Annotated[
            str, Header(max_length=MAX_WORD_BYTES, description="position of the commit to continue behind")
        ] = "",
        config: WithConfig = "true",
    ) -> Response:
        """Return the run after a commit, and what each commit from there on changed.

        As server-sent events, the history goes on until the run has ended.
        """
        events = EVENT_STREAM in accept
        given = [name for name in (("from", "count") if events else ("after",)) if name in request.query_params]
        if given:
            raise BadRequestError(
                f"{given[0]} is for {'JSON' if events else 'server-sent events'}",
                code="invalidParameter",
                hint="leave it out"
                if events
                else "send the header Accept: text/event-stream, or name the first commit in from",
            )
        place = last_event_id or after
        begin = Position.parse(place) if events and place else None
        required = await require_run(context, sender_of(request), run_id, Wish.SEE)
        found = await context.past.history(run_id)
        if events:
            writer = partial(write_history, found, begin, with_config=flag(config))
            access = access_of(context, request, required)
            return EventResponse(writer, stopping=context.stopping, access=access)
        return json_response(await history_answer(found, first, count, with_config=flag(config)))

    @router.get("/runs/{run_id}/diff", openapi_extra=documented(None, RunDiff))
    async def diff(
        request: Request,
        run_id: str,
        at_least: AtLeast,
        vs: Annotated[
            str,
            Query(
                max_length=MAX_WORD_BYTES,
                description="the id of another run, or a time (with zone) or position of this one; without it, the "
                "last successful run before this one of its name and group",
            ),
        ] = "",
        at: At = "",
        vs_at: Annotated[
            str, Query(max_length=MAX_WORD_BYTES, description="the other run as of this time (with zone) or position")
        ] = "",
    ) -> Response:
        """Return what differs in a run from another one, or from the same run at another moment."""
        require_uuid(run_id, "run id")
        sender = sender_of(request)
        moment = "" if not vs or is_uuid(vs) else vs
        if moment and vs_at:
            raise BadRequestError(
                "vs is a moment already", code="invalidParameter", hint="vs_at is for a run that vs names by its id"
            )
        after = await _run(context, sender, run_id, at, at_least)
        other = run_id if moment else vs or await _last_success(context, after.run)
        before = await _run(context, sender, other, moment or vs_at, ())
        return json_response(run_difference(after, before, at=at, before_at=moment or vs_at))

    @router.get("/runs/{run_id}/restart/preview", openapi_extra=documented(None, RestartPreview))
    async def preview(
        request: Request,
        run_id: str,
        from_start: Flag = None,
        task: Annotated[
            list[Annotated[str, Field(max_length=MAX_WORD_BYTES)]],
            Query(description="run this task again, by name or id; repeated"),
        ] = [],  # noqa: B006  FastAPI copies it
        descendants: Flag = None,
    ) -> Response:
        """Return which tasks a restart would run again, without any parameter those that did not succeed."""
        await require_run(context, sender_of(request), run_id, Wish.SEE)
        body = CreateRunBody(run_id=run_id, from_start=flag(from_start), tasks=task, descendants=flag(descendants))
        return json_response(await context.restarts.preview(body))

    return router


async def _run(
    context: GatewayContext, sender: Sender, run_id: str, at: str, at_least: Sequence[Position]
) -> RunAnswer:
    """Return a run that the sender may see, as of a moment; empty for now. Raises NotExistError."""
    await require_run(context, sender, run_id, Wish.SEE)
    past = context.past.run(run_id, parse_point(at)) if at else context.reads.run(run_id, at_least)
    read = await past
    return run_answer(read.record.run, read.config, read.record.executor_tasks)


async def _last_success(context: GatewayContext, run: Run) -> str:
    """Return the id of the last run before this one of its name and group that succeeded. Raises NotExistError."""
    query = RunQuery(
        groups=(run.group,), name=run.name, results=(RunResult.SUCCESS,), start=run.sequence, limit=MAX_LIMIT
    )
    for _ in range(_PAGES):
        page = await context.reads.runs(query, ())
        found = next((one.id for one in page.runs if one.group == run.group), None)
        if found is not None:
            return found
        if page.next_start is None:
            break
        query = replace(query, start=page.next_start)
    raise NotExistError(
        f"no run {run.name!r} of group {run.group} before this one has succeeded",
        code="noEarlierSuccess",
        details={"run": run.id},
        hint="name another run, or a moment of this one, in vs",
    )


def _described() -> dict[str, Any]:
    described = documented(None, RunHistoryAnswer)
    described["responses"]["200"]["content"][EVENT_STREAM] = {}
    return described
