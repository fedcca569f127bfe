"""Maintenance mode (rules maintenance-1 and maintenance-2): asked for, ended, and how far every process is.

All of it needs the token, and is answered in maintenance too.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.errors import BadRequestError
from runstream.gateway.bodies import Body, read_body
from runstream.gateway.parts import answer, documented
from runstream.gateway.texts import Label, Word
from runstream.ids import new_id, require_token
from runstream.limits import MAX_WORD_BYTES
from runstream.maintenance import MaintenanceAnswer, Order, Overview, require_said, require_service
from runstream.runconfig.amounts import parse_duration

_MAX_BODY = 16_384
_MAX_WAIT_SECONDS = 25.0


class MaintenanceBody(Body, frozen=True):
    """Who changes the mode and why; a body is not needed."""

    by: Label = ""
    reason: Word = ""
    deadline: Label = ""
    """Only to enable it: how long running tasks may take before they are stopped, such as `10m`; empty: no limit."""


def maintenance_routes(overview: Overview) -> APIRouter:
    """Maintenance of each service; without a name it is that of `runs`."""
    router = APIRouter(tags=["maintenance"])
    control = overview.control
    documentation = documented(MaintenanceBody, MaintenanceAnswer)
    documentation["requestBody"]["required"] = False

    @router.get("/maintenance", openapi_extra=documented(None, MaintenanceAnswer))
    @router.get("/maintenance/{service}", openapi_extra=documented(None, MaintenanceAnswer))
    async def status(
        service: str = "runs",
        unlike: Annotated[
            str, Query(max_length=MAX_WORD_BYTES, description="answer when the tag is another than this")
        ] = "",
        seconds: Annotated[
            float, Query(ge=0, le=_MAX_WAIT_SECONDS, allow_inf_nan=False, description="how long to wait for that")
        ] = 0.0,
    ) -> Response:
        """What is asked for, and how far every instance is."""
        return answer(await overview.status(require_service(service), unlike=unlike, seconds=seconds))

    @router.put("/maintenance", openapi_extra=documentation)
    @router.put("/maintenance/{service}", openapi_extra=documentation)
    async def enable(request: Request, service: str = "runs") -> Response:
        """Ask for maintenance. It is answered at once: the status says when everybody is parked."""
        await control.enable(require_service(service), await _order(request))
        return answer(await overview.status(service))

    @router.delete("/maintenance", openapi_extra=documentation)
    @router.delete("/maintenance/{service}", openapi_extra=documentation)
    async def disable(request: Request, service: str = "runs") -> Response:
        """Ask for its end."""
        await control.disable(require_service(service), await _order(request))
        return answer(await overview.status(service))

    @router.delete("/maintenance/{service}/instances/{instance_id}", status_code=204)
    async def forget(service: str, instance_id: str) -> Response:
        """Forget a lost instance, when it is certain that its process has ended."""
        require_service(service)
        await overview.roster.forget(require_token(instance_id, "instance id"))
        return Response(status_code=204)

    return router


async def _order(request: Request) -> Order:
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    body = await read_body(request, MaintenanceBody, _MAX_BODY) if has_body else MaintenanceBody()
    require_said(body.by, body.reason)
    now = datetime.now(UTC)
    return Order(new_id(), body.by or "api", body.reason, now, _deadline(body.deadline, now))


def _deadline(text: str, now: datetime) -> datetime | None:
    if not text:
        return None
    try:
        nanoseconds = parse_duration(text)
        if nanoseconds < 0:
            raise ValueError(f"{text!r} is in the past")
        return now + timedelta(microseconds=nanoseconds / 1000)
    except (ValueError, OverflowError) as error:
        raise BadRequestError(
            f"the deadline cannot be used: {error}",
            code="invalidDeadline",
            hint="it is a duration such as 10m or 1h30m",
        ) from error
