"""GET and DELETE /caches: what tasks have kept for later runs (rule step-24)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream import api
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.cursors import decode_cursor, encode_cursor
from runstream.gateway.routers import api_router
from runstream.gateway.run_access import require_caches
from runstream.gateway.sender import sender_of
from runstream.limits import MAX_WORD_BYTES

MAX_CACHES = 1000
_Group = Annotated[str, Query(max_length=MAX_WORD_BYTES, description="the group of caches, such as /project/web")]


class _CacheCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    start: str
    """The path of the last cache of the page before."""
    group: str
    prefix: str


def cache_routes(context: GatewayContext) -> APIRouter:
    """Return the routes that list and delete caches."""
    router = api_router("caches")

    @router.get("/caches", openapi_extra=documented(None, api.CacheList))
    async def list_caches(
        request: Request,
        group: _Group = "",
        prefix: Annotated[
            str, Query(max_length=MAX_WORD_BYTES, description="the text that keys begin with; needs a group")
        ] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_CACHES, description="of caches, at most")] = 100,
        cursor: Annotated[str, Query(max_length=1 << 15, description="as an earlier response gave it")] = "",
    ) -> Response:
        """Return the caches of a group, or for administrators of all groups, by group and key."""
        require_caches(context, sender_of(request), group)
        start = ""
        if cursor:
            start = decode_cursor(
                cursor, _CacheCursor, lambda found: (found.group, found.prefix) == (group, prefix)
            ).start
        page = await context.caches.page(group, prefix, limit, start)
        following = encode_cursor(_CacheCursor(page.cursor, group, prefix)) if page.cursor else ""
        return json_response(msgspec.structs.replace(page, cursor=following))

    @router.delete("/caches", status_code=204)
    async def delete(
        request: Request,
        group: Annotated[str, Query(min_length=1, max_length=MAX_WORD_BYTES, description="the group of the cache")],
        key: Annotated[str, Query(min_length=1, max_length=MAX_WORD_BYTES, description="its key")],
    ) -> Response:
        """Delete a cache. A step that restores it now still gets all of it."""
        require_caches(context, sender_of(request), group)
        await context.caches.delete(group, key)
        return Response(status_code=204)

    return router
