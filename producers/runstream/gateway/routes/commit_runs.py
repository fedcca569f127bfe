"""POST /projects/{project}/createrun and /user/createrun: the runs of a commit."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runstream.domain.config.permissions import Action, require
from runstream.domain.config.references import find_project
from runstream.errors import InternalError
from runstream.gateway.config_requests import Ref
from runstream.gateway.context import GatewayContext, documented, position_headers
from runstream.gateway.requests import CommitRunBody, DirectRunBody
from runstream.gateway.routes.runs import KeyHeader
from runstream.gateway.runs.create import CreatedRun
from runstream.gateway.runs.from_commits import create_direct_runs, create_project_runs
from runstream.gateway.sender import sender_of


def commit_run_routes(context: GatewayContext) -> APIRouter:
    """Return the routes that create the runs of commits."""
    router = APIRouter(tags=["runs"])

    @router.post("/projects/{project}/createrun", status_code=201, openapi_extra=documented(CommitRunBody))
    async def create_of_project(request: Request, project: Ref, idempotency_key: KeyHeader = "") -> Response:
        """Create the runs of a commit of a project's repository. Responds once they are durable, without a body."""
        sender, state = sender_of(request), context.config.state
        found = find_project(state, project)
        require(state, sender.actor, Action.CREATE_RUN, found)
        body, key = await context.keyed_body(request, CommitRunBody)
        return await _created(context, await create_project_runs(context, sender, found, body, key))

    @router.post("/user/createrun", status_code=201, openapi_extra=documented(DirectRunBody))
    async def create_of_user(request: Request, idempotency_key: KeyHeader = "") -> Response:
        """Create the runs of a working tree that the sender pushed to /repos/. Responds once they are durable."""
        sender = sender_of(request)
        body, key = await context.keyed_body(request, DirectRunBody)
        return await _created(context, await create_direct_runs(context, sender, body, key))

    return router


async def _created(context: GatewayContext, created: Sequence[CreatedRun]) -> Response:
    """Return the response, when lists show the runs: clients of these routes read them without a position."""
    with contextlib.suppress(InternalError):  # they are durable; only the projection is behind
        for one in created[-1:]:
            await context.reads.run(one.run.id, [one.position])
    return Response(status_code=201, headers=position_headers(one.position for one in created))
