"""Why a run waits. In maintenance the gate answers this question itself: nothing behind it is asked."""

from __future__ import annotations

import re

from fastapi import APIRouter
from starlette.responses import Response

from runstream.domain.why import Explanation
from runstream.gateway.parts import Parts, answer, documented
from runstream.gateway.shapes import ReasonShape, WhyAnswer

_PATH = re.compile(r"/api/v1alpha/runs/([^/]+)/why")


def why_routes(parts: Parts) -> APIRouter:
    """One question."""
    router = APIRouter(tags=["runs"])

    @router.get("/runs/{run_id}/why", openapi_extra=documented(None, WhyAnswer))
    async def why(run_id: str) -> Response:
        """Why a run waits, told by the scheduler that decides about it."""
        return answer(_shape(run_id, await parts.explaining.why(run_id)))

    return router


def in_maintenance(method: str, path: str, reason: str) -> Response | None:
    """The answer while the service is in maintenance; None to other questions. `reason` follows on the sentence."""
    match = _PATH.fullmatch(path)
    if match is None or method != "GET":
        return None
    told = ReasonShape("maintenance", f"the service is in maintenance{reason}: nothing is decided", [], {})
    return answer(WhyAnswer(match[1], "", "", [told]))


def _shape(run_id: str, found: Explanation) -> WhyAnswer:
    reasons = [ReasonShape(one.code, one.message, list(one.tasks), one.details) for one in found.reasons]
    return WhyAnswer(run_id, found.phase.value, found.result.value, reasons, found.omitted)
