"""GET /flaky: the tasks that failed, and then passed with the same commit and the same run config."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runstream.api import FlakyList
from runstream.gateway.context import AtLeast, GatewayContext, documented, json_response
from runstream.gateway.routers import api_router
from runstream.gateway.routes.runs import Groups
from runstream.gateway.run_access import require_groups
from runstream.gateway.sender import sender_of
from runstream.limits import require_group


def flaky_routes(context: GatewayContext) -> APIRouter:
    """Return the route of flaky tasks."""
    router = api_router("runs")

    @router.get("/flaky", openapi_extra=documented(None, FlakyList))
    async def list_flaky(
        request: Request,
        at_least: AtLeast,
        group: Groups = [],  # noqa: B006  FastAPI copies it
    ) -> Response:
        """Return tasks that failed and then passed with the same commit and run config, the most frequent first.

        A bounded number of the latest failures is looked at.
        """
        groups = require_groups(context, sender_of(request), [require_group(one) for one in group])
        return json_response(await context.reads.flaky(groups, at_least))

    return router
