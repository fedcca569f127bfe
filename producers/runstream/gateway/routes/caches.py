"""GET and DELETE /caches: what tasks have kept for later runs (rule step-24)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from runstream import api
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.limits import MAX_WORD_BYTES

MAX_CACHES = 1000
_Group = Annotated[str, Query(max_length=MAX_WORD_BYTES, description="the group of caches, such as /project/web")]


def cache_routes(context: GatewayContext) -> APIRouter:
    """Return the routes that list and delete caches."""
    router = APIRouter(tags=["caches"])

    @router.get("/caches", openapi_extra=documented(None, api.CacheList))
    async def list_caches(
        group: _Group = "",
        prefix: Annotated[
            str, Query(max_length=MAX_WORD_BYTES, description="the text that keys begin with; needs a group")
        ] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_CACHES, description="of caches, at most")] = 100,
        cursor: Annotated[str, Query(max_length=MAX_WORD_BYTES, description="as an earlier response gave it")] = "",
    ) -> Response:
        """Return the caches of a group, or of all groups, by group and key."""
        page = await context.caches.page(group, prefix, limit, cursor)
        return json_response(page)

    @router.delete("/caches", status_code=204)
    async def delete(
        group: Annotated[str, Query(min_length=1, max_length=MAX_WORD_BYTES, description="the group of the cache")],
        key: Annotated[str, Query(min_length=1, max_length=MAX_WORD_BYTES, description="its key")],
    ) -> Response:
        """Delete a cache. A step that restores it now still gets all of it."""
        await context.caches.delete(group, key)
        return Response(status_code=204)

    return router
