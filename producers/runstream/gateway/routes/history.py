"""GET /runs/{run_id}/history: what each commit changed of a run, as JSON or as server-sent events."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.commits import Position
from runstream.errors import BadRequestError
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.responses import RunHistoryAnswer
from runstream.gateway.run_access import Wish, require_run
from runstream.gateway.runs.history import MAX_COMMITS, history_answer, write_history
from runstream.gateway.sender import sender_of
from runstream.gateway.streaming import LiveResponse
from runstream.limits import MAX_WORD_BYTES

EVENT_STREAM = "text/event-stream"


def history_routes(context: GatewayContext) -> APIRouter:
    """Return the route of a run's history."""
    router = APIRouter(tags=["runs"])

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
        await require_run(context, sender_of(request), run_id, Wish.SEE)
        found = await context.past.history(run_id)
        if events:
            writer = partial(write_history, found, begin)
            return LiveResponse(writer, media_type=EVENT_STREAM, headers={}, stopping=context.stopping)
        return json_response(await history_answer(found, first, count))

    return router


def _described() -> dict[str, Any]:
    described = documented(None, RunHistoryAnswer)
    described["responses"]["200"]["content"][EVENT_STREAM] = {}
    return described
