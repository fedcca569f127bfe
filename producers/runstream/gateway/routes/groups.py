"""GET /groups/{group}: the queue of a group, and how long its last runs took.

The runs of a group run one at a time, in the order of their creation: each waits for the one before it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from statistics import median
from urllib.parse import unquote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runstream.api import GroupView, QueuedRun, RunSummary, RunTimes
from runstream.database.run_lists import MAX_LIMIT, RunQuery
from runstream.gateway.context import AtLeast, GatewayContext, documented, json_response
from runstream.gateway.routers import api_router
from runstream.gateway.run_access import require_group
from runstream.gateway.sender import sender_of
from runstream.limits import require_group_size
from runstream.run_states import RunPhase

MAX_QUEUE = 200
"""Maximum number of unfinished runs shown of a group."""
LAST = 30
"""Number of finished runs whose times are shown."""


def run_group_routes(context: GatewayContext) -> APIRouter:
    """Return the route of a group; the group is one escaped segment of the path."""
    router = api_router("runs")

    @router.get("/groups/{escaped_group:path}", openapi_extra=documented(None, GroupView))
    async def get_group(request: Request, at_least: AtLeast) -> Response:
        """Return the unfinished runs of a group in their order, and the times of its last finished runs."""
        raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
        group = require_group_size(unquote(raw.decode("latin-1").partition("/groups/")[2]))
        require_group(context, sender_of(request), group)
        queue, more = await _queue(context, group, at_least)
        finished = RunQuery(groups=(group,), phases=(RunPhase.FINISHED,), limit=LAST)
        last = [run for run in (await context.reads.runs(finished, ())).runs if run.group == group]
        return json_response(group_view(group, queue, last, more=more))

    return router


async def _queue(context: GatewayContext, group: str, at_least: AtLeast) -> tuple[list[RunSummary], bool]:
    """Return the unfinished runs of the group, without those of groups below it, and whether more follow."""
    query = RunQuery(groups=(group,), phases=(RunPhase.QUEUED, RunPhase.RUNNING), limit=MAX_LIMIT, ascending=True)
    queue: list[RunSummary] = []
    page = await context.reads.runs(query, at_least)
    while True:
        queue += [run for run in page.runs if run.group == group]
        if page.next_start is None or len(queue) >= MAX_QUEUE:
            return queue[:MAX_QUEUE], page.next_start is not None
        page = await context.reads.runs(replace(query, start=page.next_start), ())


def group_view(group: str, queue: list[RunSummary], last: list[RunSummary], *, more: bool) -> GroupView:
    """Return a group from its unfinished runs in order and its last finished ones."""
    places = (QueuedRun(run, queue[ahead - 1].id if ahead else "", ahead) for ahead, run in enumerate(queue))
    times = tuple(
        RunTimes(run, _seconds(run.enqueue_time, run.start_time), _seconds(run.start_time, run.end_time))
        for run in last
    )
    took = [one.took for one in times if one.took is not None]
    waited = [one.waited for one in times if one.waited is not None]
    return GroupView(
        group, tuple(places), more, times, median(waited) if waited else None, median(took) if took else None
    )


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return (end - begin).total_seconds() if begin is not None and end is not None else None
