"""GET /export: the whole log as one file, while everything goes on (rule maintenance-3). In maintenance too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import APIRouter, Query
from starlette.responses import Response

from runstream.gateway.live import LiveAnswer
from runstream.limits import MAX_WORD_BYTES

MEDIA_TYPE = "application/x-tar"
_ANSWER = {"responses": {"200": {"description": "a snapshot", "content": {MEDIA_TYPE: {}}}}}


@dataclass(frozen=True, slots=True)
class Export:
    """An export that can begin."""

    name: str
    """What its file could be called."""
    write: Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]
    """Sends all of it with the function that it is given; raises when the log fails on the way."""


class Exports(Protocol):
    """What exports the log."""

    async def open(self, until: str, include: str) -> Export:
        """An export up to a position or time (empty: up to now), with these objects (logs, archives).

        Raises BadRequestError for what cannot be asked, ConflictError when too many are under way.
        """
        ...


def export_routes(exports: Exports) -> APIRouter:
    """The export. What fails once it has begun ends the connection: the file is cut off, and its reader sees that."""
    router = APIRouter(tags=["service"])

    @router.get("/export", openapi_extra=_ANSWER)
    async def export(
        until: Annotated[
            str,
            Query(max_length=MAX_WORD_BYTES, description="a position, or a time with its zone; nothing for up to now"),
        ] = "",
        include: Annotated[
            str, Query(max_length=MAX_WORD_BYTES, alias="with", description="logs, archives, or both with a comma")
        ] = "",
    ) -> Response:
        """The log as one file that `runstream snapshot verify` checks and tar, zstd and jq read."""
        found = await exports.open(until, include)
        headers = {"Content-Disposition": f'attachment; filename="{found.name}"'}
        return LiveAnswer(found.write, media_type=MEDIA_TYPE, headers=headers, stopping=asyncio.Event())

    return router
