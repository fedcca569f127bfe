"""What an administrator looks at: parked commits, the check of the rows against the log, and the health of the servers.

Health is shown in maintenance, too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Protocol

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.api import FsckState, Health, ParkedCommitDetail, ParkedList, RetriedCommits, SkippedList
from runstream.commits import Position
from runstream.errors import BadRequestError, ConflictError, NotExistError
from runstream.gateway.context import documented, json_response
from runstream.gateway.requests import FsckBody, ParkedActionBody, ParkedRetryBody, decoded, read_content
from runstream.gateway.responses import ActionAnswer
from runstream.gateway.routers import api_router
from runstream.gateway.sender import sender_of
from runstream.gateway.streaming import BackgroundJob, ReportProgress
from runstream.limits import MAX_WORD_BYTES
from runstream.maintenance.request import require_service

_MAX_BODY = 65_536
MAX_PARKED = 100
"""Maximum number of parked commits in a page."""


class ParkedCommits(Protocol):
    """The parked commits of the services' logs."""

    async def page(self, service: str, after: Position | None, limit: int) -> ParkedList:
        """Return the parked commits behind a position."""

    async def get(self, service: str, position: Position) -> ParkedCommitDetail:
        """Return a commit that is parked or was skipped. Raises NotExistError."""

    async def skipped(self, service: str) -> SkippedList:
        """Return the skipped commits."""

    async def retry(self, positions: tuple[Position, ...]) -> int:
        """Ask the schedulers to try these (or all) again; return their number."""

    async def skip(self, service: str, position: Position, *, actor: str, reason: str) -> Position:
        """Skip a commit for good; return the position of the decision. Raises NotExistError, ConflictError."""


class Fsck(Protocol):
    """The check of rows, archive and objects against the log."""

    async def run(self, report: ReportProgress, wanted: FsckBody) -> object:
        """Compare all; report the number of compared commits. Raises ConflictError while another check runs."""


class HealthSource(Protocol):
    """What the gateway finds out about the servers behind it."""

    async def findings(self) -> Health:
        """Return the findings, at most some seconds old."""


Service = Annotated[str, Query(max_length=MAX_WORD_BYTES, description="`runs` (the default) or `config`")]


def operation_routes(parked: ParkedCommits, fsck: Fsck, health: HealthSource) -> APIRouter:
    """Return the routes of parked commits, of the check of the rows, and of health."""
    router = api_router("service")
    _parked_routes(router, parked)
    _fsck_routes(router, fsck)

    @router.get("/health", openapi_extra=documented(None, Health))
    async def get_health() -> Response:
        """Return what the gateway finds out about NATS, the log, Postgres, the objects, its disk and its settings."""
        return json_response(await health.findings())

    return router


def _parked_routes(router: APIRouter, parked: ParkedCommits) -> None:
    @router.get("/parked", openapi_extra=documented(None, ParkedList))
    async def list_parked(
        service: Service = "runs",
        after: Annotated[str, Query(max_length=MAX_WORD_BYTES, description="the position of the page before")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PARKED)] = MAX_PARKED,
    ) -> Response:
        """Return the commits that could not be read or applied, in the order of the log, and why."""
        place = Position.parse(after) if after else None
        return json_response(await parked.page(require_service(service), place, limit))

    @router.get("/parked/skipped", openapi_extra=documented(None, SkippedList))
    async def list_skipped(service: Service = "runs") -> Response:
        """Return the commits that were skipped: by whom, when and why."""
        return json_response(await parked.skipped(require_service(service)))

    @router.put("/parked/actions", openapi_extra=documented(ParkedRetryBody, RetriedCommits))
    async def retry(request: Request) -> Response:
        """Ask the schedulers to try parked commits again; without positions, all of them."""
        body = decoded(await read_content(request, _MAX_BODY), ParkedRetryBody)
        asked = await parked.retry(tuple(map(Position.parse, body.positions)))
        return json_response(RetriedCommits(asked))

    @router.get("/parked/{epoch}/{partition}/{sequence}", openapi_extra=documented(None, ParkedCommitDetail))
    async def get_parked(epoch: str, partition: str, sequence: str, service: Service = "runs") -> Response:
        """Return a parked or skipped commit as it is in the log, and what waits behind it."""
        return json_response(await parked.get(require_service(service), _position(epoch, partition, sequence)))

    @router.put(
        "/parked/{epoch}/{partition}/{sequence}/actions", openapi_extra=documented(ParkedActionBody, ActionAnswer)
    )
    async def act(request: Request, epoch: str, partition: str, sequence: str, service: Service = "runs") -> Response:
        """Skip a parked commit for good, with a reason. It must be the first parked one of its run or task."""
        body = decoded(await read_content(request, _MAX_BODY), ParkedActionBody)
        if not body.reason.strip():
            raise BadRequestError("a reason is empty", code="reasonMissing", hint="say why the commit is skipped")
        position = _position(epoch, partition, sequence)
        decided = await parked.skip(
            require_service(service), position, actor=sender_of(request).author, reason=body.reason
        )
        return json_response(ActionAnswer(str(decided)), positions=[decided] if service == "runs" else [])


def _position(*parts: str) -> Position:
    return Position.parse("/".join(parts))


def _fsck_routes(router: APIRouter, fsck: Fsck) -> None:
    jobs: list[BackgroundJob] = []
    """The check that runs or ran last at this gateway."""

    @router.post(
        "/fsck", status_code=202, openapi_extra=documented(FsckBody, FsckState, statuses=(202,), required=False)
    )
    async def start(request: Request) -> Response:
        """Start to compare all rows, the archive and the objects with the log. It goes on without this request."""
        content = await read_content(request, _MAX_BODY)
        wanted = decoded(content, FsckBody) if content else FsckBody()
        if jobs and not jobs[-1].ended:
            raise fsck_runs()
        job = BackgroundJob("fsck", datetime.now(UTC), lambda report: fsck.run(report, wanted))
        jobs[:] = [job]
        await job.until_started()
        return json_response(job.status, status=202)

    @router.get("/fsck", openapi_extra=documented(None, FsckState))
    async def state() -> Response:
        """Return the progress of the check that runs at this gateway, or the findings of the last one."""
        if not jobs:
            raise NotExistError(
                "no check has run at this gateway since it started", code="noFsck", hint="POST /fsck starts one"
            )
        return json_response(jobs[-1].status)


def fsck_runs() -> ConflictError:
    """Return the error for a check that would run beside another one."""
    return ConflictError("a check runs already", code="fsckRuns", hint="GET /fsck shows its progress where it runs")
