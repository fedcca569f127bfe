"""GET /storage: what the object storage holds, and what retention removes next."""

from __future__ import annotations

from typing import Protocol

from fastapi import APIRouter
from starlette.responses import Response

from runstream.api import StorageStatus
from runstream.gateway.context import documented, json_response
from runstream.gateway.routers import api_router


class StorageSource(Protocol):
    """The use of an object storage."""

    async def status(self) -> StorageStatus:
        """Return it, measured within the last minute."""
        ...


def storage_routes(storage: StorageSource) -> APIRouter:
    """Return the route of the storage."""
    router = api_router("service")

    @router.get("/storage", openapi_extra=documented(None, StorageStatus))
    async def status() -> Response:
        """Return how many objects and bytes there are of each kind, measured within the last minute."""
        return json_response(await storage.status())

    return router
