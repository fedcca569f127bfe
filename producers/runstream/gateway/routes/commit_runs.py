"""POST /projects/{project}/createrun and /user/createrun: the runs of a commit."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runstream.domain.config.permissions import Action, require
from runstream.domain.config.references import find_project
from runstream.gateway.config_requests import Ref
from runstream.gateway.context import GatewayContext, documented, position_headers
from runstream.gateway.requests import CommitRunBody, DirectRunBody
from runstream.gateway.routers import api_router
from runstream.gateway.routes.runs import KeyHeader
from runstream.gateway.run_access import require_cache_group
from runstream.gateway.runs.create import CreatedRun
from runstream.gateway.runs.from_commits import create_direct_runs, create_project_runs
from runstream.gateway.sender import sender_of


def commit_run_routes(context: GatewayContext) -> APIRouter:
    """Return the routes that create the runs of commits."""
    router = api_router("runs")

    @router.post("/projects/{project}/createrun", status_code=201, openapi_extra=documented(CommitRunBody))
    async def create_of_project(request: Request, project: Ref, idempotency_key: KeyHeader = "") -> Response:
        """Create the runs of a commit of a project's repository. Responds once they are durable, without a body."""
        sender, state = sender_of(request), context.config.state
        found = find_project(state, project)
        require(state, sender.actor, Action.CREATE_RUN, found)
        body, key = await context.keyed_body(request, CommitRunBody)
        require_cache_group(context, sender, f"/project/{found.id}", body.cache_group)
        return _created(context, await create_project_runs(context, sender, found, body, key))

    @router.post("/user/createrun", status_code=201, openapi_extra=documented(DirectRunBody))
    async def create_of_user(request: Request, idempotency_key: KeyHeader = "") -> Response:
        """Create the runs of a working tree that the sender pushed to /repos/. Responds once they are durable."""
        sender = sender_of(request)
        body, key = await context.keyed_body(request, DirectRunBody)
        return _created(context, await create_direct_runs(context, sender, body, key))

    return router


def _created(context: GatewayContext, created: Sequence[CreatedRun]) -> Response:
    for one in created:
        context.recent.note(one.run.group, one.position)
    return Response(status_code=201, headers=position_headers(one.position for one in created))
