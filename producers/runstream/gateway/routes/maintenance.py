"""Maintenance mode (rules maintenance-1 and maintenance-2): asked for, ended, and how far every process is.

All of it needs the token, and is answered in maintenance too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.errors import BadRequestError, NotExistError
from runstream.gateway.context import Flag, documented, flag, json_response
from runstream.gateway.requests import MaintenanceBody, read_body
from runstream.gateway.streaming import JSON_LINES, Job, LiveResponse, ReportProgress, Writer
from runstream.ids import new_id, require_token
from runstream.limits import MAX_WORD_BYTES
from runstream.maintenance import MaintenanceAnswer, Order, Overview, require_said, require_service
from runstream.runconfig.amounts import parse_duration

_MAX_BODY = 16_384
_MAX_WAIT_SECONDS = 25.0


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
        return json_response(await overview.status(require_service(service), unlike=unlike, seconds=seconds))

    @router.put("/maintenance", openapi_extra=documentation)
    @router.put("/maintenance/{service}", openapi_extra=documentation)
    async def enable(request: Request, service: str = "runs") -> Response:
        """Ask for maintenance. It is answered at once: the status says when everybody is parked."""
        await control.enable(require_service(service), await _order(request))
        return json_response(await overview.status(service))

    @router.delete("/maintenance", openapi_extra=documentation)
    @router.delete("/maintenance/{service}", openapi_extra=documentation)
    async def disable(request: Request, service: str = "runs") -> Response:
        """Ask for its end."""
        await control.disable(require_service(service), await _order(request))
        return json_response(await overview.status(service))

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


MEDIA_TYPE = "application/x-tar"
_ANSWER = {"responses": {"200": {"description": "a snapshot", "content": {MEDIA_TYPE: {}}}}}


class Export(Protocol):
    """An export that can begin."""

    @property
    def name(self) -> str:
        """A name for its file."""
        ...

    @property
    def write(self) -> Writer:
        """Sends the whole file with the function that it takes; raises when the log fails on the way."""
        ...


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
        return LiveResponse(found.write, media_type=MEDIA_TYPE, headers=headers, stopping=asyncio.Event())

    return router


_LINES = {"responses": {"200": {"description": "done; or progress, line by line", "content": {JSON_LINES: {}}}}}
_BODY = {"requestBody": {"required": True, "content": {MEDIA_TYPE: {}}}, **_LINES}
Accept = Annotated[
    str,
    Header(
        max_length=MAX_WORD_BYTES,
        description=f"{JSON_LINES}: how far it is, line by line; the last line is what came of it",
    ),
]


class Imports(Protocol):
    """What imports snapshots."""

    async def run(self, content: AsyncIterator[bytes], name: str, say: ReportProgress, *, dry_run: bool) -> object:
        """Take a whole snapshot in, verify it, and import it unless it is a dry run; what was done.

        Nothing is said before all of it was taken in. Raises BadRequestError outside maintenance (before anything is
        read) and for a file that is not right, ConflictError that names who is not parked, InternalError.
        """
        ...

    async def epochs(self) -> object:
        """All epochs that are not deleted."""
        ...


def import_routes(imports: Imports) -> APIRouter:
    """The import. It goes on to its end when the client leaves, and can be asked for again."""
    router = APIRouter(tags=["service"])
    works: list[Job] = []
    """The last one, and those that go on."""

    @router.post("/import", openapi_extra=_BODY)
    async def run_import(
        request: Request,
        dry_run: Flag = None,
        name: Annotated[str, Query(description="what the file is called, for people", max_length=200)] = "",
        accept: Accept = "",
    ) -> Response:
        """Import the body, which is a snapshot as GET /export gives it. Answers when it is done."""
        content, called, dry = request.stream(), name or "a snapshot", flag(dry_run)
        work = Job(called, datetime.now(UTC), lambda say: imports.run(content, called, say, dry_run=dry))
        await work.until_begun()
        works[:] = [one for one in works if not one.ended] + [work]
        return _followed(work) if JSON_LINES in accept else json_response(await work.result())

    @router.get("/import", openapi_extra=_LINES)
    async def current_import(accept: Accept = "") -> Response:
        """The import that goes on at this gateway, or the last one that did; with progress up to its end."""
        work = next((one for one in reversed(works) if not one.ended), works[-1] if works else None)
        if work is None:
            raise NotExistError(
                "no import was begun at this gateway since it was started",
                code="noImport",
                hint="`runstream epochs list` shows an epoch that is loading, wherever the import goes on",
            )
        return _followed(work) if JSON_LINES in accept else json_response(work.status)

    @router.get("/epochs")
    async def epochs() -> Response:
        """The epochs of the log, and which of them is served."""
        return json_response(await imports.epochs())

    return router


def _followed(work: Job) -> Response:
    return LiveResponse(work.write, media_type=JSON_LINES, headers={}, stopping=asyncio.Event())
