"""GET /events and /runs/events: the log and the phases of runs as server-sent events (rules run-10 and run-11)."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.commits import LogPosition, Position
from runstream.errors import BadRequestError
from runstream.gateway.access import require_administrator
from runstream.gateway.context import GatewayContext
from runstream.gateway.events import Formatter, RunPhases, commit_event, write_events
from runstream.gateway.open_access import OpenAccess, Requirement, access_of
from runstream.gateway.routers import api_router
from runstream.gateway.run_access import Wish, require_run, sees_runs
from runstream.gateway.sender import sender_of
from runstream.gateway.streaming import EVENT_STREAM, EventResponse
from runstream.limits import MAX_WORD_BYTES
from runstream.log.tail import TailScope, resolve_position, scope_of_run

_STREAM = {"responses": {"200": {"description": "server-sent events", "content": {EVENT_STREAM: {}}}}}


def event_routes(context: GatewayContext) -> APIRouter:
    """Return the two event streams. They end when the client leaves; Last-Event-ID resumes."""
    router = api_router("events")

    def stream(scope: TailScope, start: LogPosition, format_message: Formatter, access: OpenAccess) -> Response:
        writer = partial(write_events, context.log, scope, start, format_message)
        return EventResponse(writer, stopping=context.stopping, access=access)

    @router.get("/events", openapi_extra=_STREAM)
    async def events(
        request: Request,
        begin: Annotated[
            str,
            Query(
                max_length=MAX_WORD_BYTES,
                alias="from",
                description="a position of the log, a time with its zone, `start` or `end`",
            ),
        ] = "",
        run: Annotated[str, Query(max_length=MAX_WORD_BYTES, description="only this run and its tasks")] = "",
        last_event_id: Annotated[
            str, Header(max_length=MAX_WORD_BYTES, description="the position to resume from")
        ] = "",
    ) -> Response:
        """Stream every commit from the end of the log, or of one run from its start; `id` is the position behind it."""
        sender = sender_of(request)
        required: Requirement = require_administrator
        if run:
            required = await require_run(context, sender, run, Wish.SEE)
        else:
            require_administrator(sender)
        scope = await scope_of_run(context.log, run)
        start = await resolve_position(context.log, last_event_id or begin or ("start" if run else "end"))
        return stream(scope, start, commit_event, access_of(context, request, required))

    @router.get("/runs/events", openapi_extra=_STREAM)
    async def run_events(
        request: Request,
        after: Annotated[
            str,
            Query(max_length=MAX_WORD_BYTES, alias="afterSequence", description="a position; empty or 0 for the end"),
        ] = "",
        last_event_id: Annotated[
            str, Header(max_length=MAX_WORD_BYTES, description="the position to resume from")
        ] = "",
    ) -> Response:
        """Stream an event for each change of the phase or the result of a run that the sender may see."""
        sees = partial(sees_runs, context, sender_of(request))
        start = await _start_after(context, last_event_id or after)
        phases = RunPhases(context.log, context.past, sees)
        scope = await scope_of_run(context.log, "")
        return stream(scope, start, phases.format_message, access_of(context, request))

    return router


async def _start_after(context: GatewayContext, text: str) -> LogPosition:
    if text in ("", "0"):
        return await resolve_position(context.log, "end")
    if "/" not in text:
        return await resolve_position(context.log, text)
    position = Position.parse(text.strip())
    if position.epoch != context.log.epoch or position.partition >= context.log.partitions:
        raise BadRequestError(
            f"position {text[:80]} is not one of this log",
            code="invalidPosition",
            hint="leave the position out to begin at the end",
        )
    ends = await resolve_position(context.log, "end")
    sequences = list(ends.sequences)
    sequences[position.partition] = position.sequence
    return await resolve_position(context.log, str(LogPosition(context.log.epoch, tuple(sequences))))
