"""The routes that also work in maintenance: the mode itself, export and import (rules maintenance-1 to maintenance-4).

/maintenance   enable, disable, and the state of every process
GET /export    the whole log as one file, while the service runs
POST /import   replace the log by a snapshot; it needs maintenance
GET /epochs    the epochs that are kept
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.api import Maintenance
from runstream.errors import BadRequestError, NotExistError
from runstream.gateway.context import Flag, documented, flag, json_response
from runstream.gateway.requests import MaintenanceBody, decoded, read_content
from runstream.gateway.routers import api_router
from runstream.gateway.streaming import JSON_LINES, BackgroundJob, LiveResponse, ReportProgress, Writer
from runstream.ids import new_id, require_token
from runstream.limits import MAX_WORD_BYTES
from runstream.maintenance.instances import Overview
from runstream.maintenance.request import Order, require_author_and_reason, require_service
from runstream.runconfig.amounts import parse_duration

_MAX_BODY = 16_384
_MAX_WAIT_SECONDS = 25.0


def maintenance_routes(overview: Overview) -> APIRouter:
    """Return the routes of maintenance mode of each service; without a name, of `runs`."""
    router = api_router("maintenance")
    control = overview.control
    documentation = documented(MaintenanceBody, Maintenance)
    documentation["requestBody"]["required"] = False

    @router.get("/maintenance", openapi_extra=documented(None, Maintenance))
    @router.get("/maintenance/{service}", openapi_extra=documented(None, Maintenance))
    async def status(
        service: str = "runs",
        unlike: Annotated[
            str, Query(max_length=MAX_WORD_BYTES, description="wait until the tag differs from this one")
        ] = "",
        seconds: Annotated[
            float,
            Query(ge=0, le=_MAX_WAIT_SECONDS, allow_inf_nan=False, description="how long to wait, in seconds"),
        ] = 0.0,
    ) -> Response:
        """Return the requested mode, and the state of every instance."""
        return json_response(await overview.status(require_service(service), unlike=unlike, seconds=seconds))

    @router.put("/maintenance", openapi_extra=documentation)
    @router.put("/maintenance/{service}", openapi_extra=documentation)
    async def enable(request: Request, service: str = "runs") -> Response:
        """Request maintenance. The response comes at once; the status shows when every instance is parked."""
        service = require_service(service)
        await control.enable(service, await _order(request))
        return json_response(await overview.status(service))

    @router.delete("/maintenance", openapi_extra=documentation)
    @router.delete("/maintenance/{service}", openapi_extra=documentation)
    async def disable(request: Request, service: str = "runs") -> Response:
        """Request the end of maintenance."""
        service = require_service(service)
        await control.disable(service, await _order(request))
        return json_response(await overview.status(service))

    @router.delete("/maintenance/{service}/instances/{instance_id}", status_code=204)
    async def forget(service: str, instance_id: str) -> Response:
        """Forget a lost instance whose process has certainly ended."""
        require_service(service)
        await overview.roster.forget(require_token(instance_id, "instance id"))
        return Response(status_code=204)

    return router


async def _order(request: Request) -> Order:
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    body = decoded(await read_content(request, _MAX_BODY), MaintenanceBody) if has_body else MaintenanceBody()
    require_author_and_reason(body.by, body.reason)
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

    @property
    def write(self) -> Writer:
        """Send the whole file with the function that it takes; raise when the log fails on the way."""


class Exports(Protocol):
    """Exports of the log."""

    async def open(self, until: str, include: str) -> Export:
        """Return an export up to a position or time (empty: up to now), with these objects (logs, archives).

        Raises BadRequestError for invalid parameters, ConflictError while too many exports run.
        """


EVERY_SERVICE = ""
"""Stands for all services, of a request that names none."""


def _named(service: str) -> str:
    return service and require_service(service)


def export_routes(of_service: Mapping[str, Exports]) -> APIRouter:
    """Return the export of each service; without a name, of all services in one file.

    A failure after its start ends the connection, so that the reader sees a truncated file.
    """
    router = api_router("service")

    @router.get("/export", openapi_extra=_ANSWER)
    @router.get("/export/{service}", openapi_extra=_ANSWER)
    async def export(
        service: str = EVERY_SERVICE,
        until: Annotated[
            str,
            Query(max_length=MAX_WORD_BYTES, description="a position, or a time with its zone; empty for now"),
        ] = "",
        include: Annotated[
            str, Query(max_length=MAX_WORD_BYTES, alias="with", description="logs, archives, or both with a comma")
        ] = "",
    ) -> Response:
        """Send the log as one file that `runstream snapshot verify` checks and tar, zstd and jq read."""
        found = await of_service[_named(service)].open(until, include)
        headers = {"Content-Disposition": f'attachment; filename="{found.name}"'}
        return LiveResponse(found.write, media_type=MEDIA_TYPE, headers=headers, stopping=asyncio.Event())

    return router


_LINES = {"responses": {"200": {"description": "the result; or progress, line by line", "content": {JSON_LINES: {}}}}}
_BODY = {"requestBody": {"required": True, "content": {MEDIA_TYPE: {}}}, **_LINES}
Accept = Annotated[
    str,
    Header(
        max_length=MAX_WORD_BYTES,
        description=f"{JSON_LINES}: progress, line by line; the last line is the result",
    ),
]


class Imports(Protocol):
    """Imports of snapshots."""

    async def run(self, content: AsyncIterator[bytes], name: str, report: ReportProgress, *, dry_run: bool) -> object:
        """Store a snapshot, verify it, and import it unless this is a dry run; return what was done.

        Progress is reported only once all of the snapshot is stored. Raises BadRequestError outside maintenance (before
        the first byte is read) and for an invalid file, ConflictError that names the instances that are not parked,
        InternalError.
        """

    async def epochs(self) -> object:
        """Return all epochs that are not deleted."""


def import_routes(of_service: Mapping[str, Imports]) -> APIRouter:
    """Return the import into each service; without a name, into all services that the file holds, in one step.

    It runs to its end when the client leaves, and a later request can follow it.
    """
    router = api_router("service")
    jobs_of: dict[str, list[BackgroundJob]] = {service: [] for service in of_service}
    """The last job of each service (and of all of them), and those that run."""

    @router.post("/import", openapi_extra=_BODY)
    @router.post("/import/{service}", openapi_extra=_BODY)
    async def run_import(
        request: Request,
        service: str = EVERY_SERVICE,
        dry_run: Flag = None,
        name: Annotated[str, Query(description="the name of the file, for people", max_length=200)] = "",
        accept: Accept = "",
    ) -> Response:
        """Import the body, a snapshot as GET /export sends it. Responds once the import is done."""
        service = _named(service)
        imports, jobs = of_service[service], jobs_of[service]
        content, called, dry = request.stream(), name or "a snapshot", flag(dry_run)
        job = BackgroundJob(called, datetime.now(UTC), lambda report: imports.run(content, called, report, dry_run=dry))
        await job.until_started()
        jobs[:] = [one for one in jobs if not one.ended] + [job]
        return _followed(job) if JSON_LINES in accept else json_response(await job.result())

    @router.get("/import", openapi_extra=_LINES)
    @router.get("/import/{service}", openapi_extra=_LINES)
    async def current_import(service: str = EVERY_SERVICE, accept: Accept = "") -> Response:
        """Return the import that runs at this gateway, or the last one; on request with its progress up to its end."""
        jobs = jobs_of[_named(service)]
        job = next((one for one in reversed(jobs) if not one.ended), jobs[-1] if jobs else None)
        if job is None:
            raise NotExistError(
                "no import has run at this gateway since it started",
                code="noImport",
                hint="`runstream epochs list` shows an epoch that is loading, at whichever gateway the import runs",
            )
        return _followed(job) if JSON_LINES in accept else json_response(job.status)

    @router.get("/epochs")
    @router.get("/epochs/{service}")
    async def epochs(service: str = "runs") -> Response:
        """Return the epochs of the log, and which of them is served."""
        return json_response(await of_service[require_service(service)].epochs())

    return router


def _followed(job: BackgroundJob) -> Response:
    return LiveResponse(job.write, media_type=JSON_LINES, headers={}, stopping=asyncio.Event())
