"""GET /badges/{project}: a picture of how the last run of a project, or of one of its branches, has ended."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from runstream.api import RunSummary
from runstream.database.run_lists import RunQuery
from runstream.domain.config.references import find_project
from runstream.gateway.config_requests import Ref
from runstream.gateway.context import GatewayContext
from runstream.gateway.routers import api_router
from runstream.limits import MAX_WORD_BYTES
from runstream.run_states import RunPhase, RunResult
from runstream.runconfig.refs import ref_context, run_group

Badge = Literal["unknown", "error", "inprogress", "failed", "success"]
_COLORS: dict[Badge, str] = {
    "unknown": "#9f9f9f",
    "error": "#e05d44",
    "inprogress": "#dfb317",
    "failed": "#e05d44",
    "success": "#4c1",
}
_TEXTS: dict[Badge, str] = {
    "unknown": "unknown",
    "error": "error",
    "inprogress": "in progress",
    "failed": "failed",
    "success": "success",
}
_LABEL = "run"
_LETTER = 7
_PADDING = 10


def badge_routes(context: GatewayContext) -> APIRouter:
    """Return the route of badges."""
    router = api_router("runs")

    @router.get(
        "/badges/{project}",
        openapi_extra={"responses": {"200": {"description": "the badge", "content": {"image/svg+xml": {}}}}},
    )
    async def badge(
        project: Ref, branch: Annotated[str, Query(max_length=MAX_WORD_BYTES, description="of any if empty")] = ""
    ) -> Response:
        """Return the badge of a project as SVG; it needs no login, so that documents can show it."""
        root = f"/project/{find_project(context.config.state, project).id}"
        group = run_group(root, ref_context(branch=branch)) if branch else root
        query = RunQuery(groups=(group,), limit=1)
        page = await context.recent.read(root, (), partial(context.reads.runs, query))
        content = svg(badge_of(page.runs[0] if page.runs else None))
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        return Response(content, headers=headers, media_type="image/svg+xml")

    return router


def badge_of(run: RunSummary | None) -> Badge:
    """Return the badge of a run; of none, `unknown`."""
    if run is None:
        return "unknown"
    match run.result:
        case RunResult.SUCCESS:
            return "success"
        case RunResult.FAILED | RunResult.STOPPED:
            return "failed"
    match run.phase:
        case RunPhase.SETUP_ERROR:
            return "error"
        case RunPhase.QUEUED | RunPhase.RUNNING:
            return "inprogress"
        case RunPhase.CANCELLED:
            return "failed"
    return "unknown"


def svg(badge: Badge) -> str:
    """Return a badge as SVG."""
    text = _TEXTS[badge]
    left, right = (len(one) * _LETTER + _PADDING for one in (_LABEL, text))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{_LABEL}: {text}"><title>{_LABEL}: {text}</title>'
        f'<rect width="{left}" height="20" fill="#555"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{_COLORS[badge]}"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{left / 2:g}" y="14">{_LABEL}</text><text x="{left + right / 2:g}" y="14">{text}</text></g></svg>\n'
    )
