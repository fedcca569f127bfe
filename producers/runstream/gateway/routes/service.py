"""What answers: version and OpenAPI below /api/v1alpha, metrics and health at the root."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from runstream.gateway.parts import Parts, answer, documented
from runstream.gateway.shapes import VersionAnswer
from runstream.release import version


def service_routes(parts: Parts) -> APIRouter:
    """Which service this is."""
    router = APIRouter(tags=["service"])

    @router.get("/version", openapi_extra=documented(None, VersionAnswer))
    async def get_version() -> Response:
        """The service's version and its log. Needs no token."""
        log = parts.log
        return answer(VersionAnswer("runstream", version(), parts.settings.namespace, log.epoch, log.partitions))

    return router
