"""The wait for NATS, Postgres or the object storage: the process is not ready, and reports the missing dependency.

It answers on its future port: /healthz and /metrics as always, /readyz with the missing dependency. In place of a
gateway, it serves the page, which says what is missing, and every other path answers 503, so that clients wait too.
"""

from __future__ import annotations

import asyncio
from typing import Self

import nats.errors
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from runstream.errors import DEPENDENCY_OF_CODE, InternalError, RunstreamError, causes
from runstream.jetstream.api import is_away
from runstream.lifecycle import wait_for_first
from runstream.runconfig.amounts import parse_duration
from runstream.service.edge import sentence
from runstream.settings import Settings
from runstream.telemetry.health import Check, health_routes
from runstream.telemetry.http_server import HttpServer
from runstream.telemetry.logs import without_secrets
from runstream.telemetry.process import Telemetry

REPORT_INTERVAL = 10.0
"""Seconds between two messages about a missing dependency."""
_PAUSE_SECONDS = 0.5
_CODES = {"postgres": "databaseUnreachable", "objects": "objectsUnreachable"}
"""The error code of requests meanwhile; `logUnreachable` for any other."""
_FOR_GOOD = frozenset({"databaseCredentialsRefused", "databaseMissing"})
"""Errors of a setting, which waiting does not repair."""
_WRAPPERS = frozenset({"componentEnded", "componentNotStarted"})
log = structlog.get_logger()


class Waiting:
    """The wait for missing dependencies; `end` it when they are back. Its server stops with the block."""

    def __init__(self, settings: Settings, telemetry: Telemetry, remembered_port: int) -> None:
        """`remembered_port` is the gateway's last port."""
        self._gateway = "gateway" in settings.components
        self._host = settings.host
        self._port = (settings.port or remembered_port) if self._gateway else settings.metrics_port
        text = settings.wait_for_dependencies
        self._seconds = parse_duration(text) / 1e9 if text else None
        self._telemetry = telemetry
        self._since: float | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._missing: dict[str, InternalError] = {}
        self._checks: dict[str, Check] = {}
        """The failing check of the missing dependency, by its name on /readyz."""
        self._server: HttpServer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def until_next_attempt(self, error: Exception) -> None:
        """Return when it is time to try again. Raise the error when waiting does not help, or has lasted too long."""
        name = dependency_of(error)
        now = asyncio.get_running_loop().time()
        begun = self._since if self._since is not None else now
        if name is None or (self._seconds is not None and now - begun >= self._seconds):
            raise error
        why = without_secrets(sentence(error))
        new = name not in self._missing
        self._since = begun
        error = InternalError(f"waiting for {name}: {why}", code=_CODES.get(name, "logUnreachable"))
        self._missing.clear()
        self._missing[name] = error
        self._checks.clear()
        self._checks["database" if name == "postgres" else name] = _failing(error)
        if self._server is None:
            self._server = HttpServer(self._app(), self._host, self._port, grace_seconds=1.0)
            await self._server.start()
        if new:  # logged at once and then every ten seconds, however long an attempt takes
            self._end_reporting()
            self._reporting = asyncio.create_task(self._report(name, begun), name="waiting")
        await wait_for_first(self._server.wait(), asyncio.sleep(_PAUSE_SECONDS))

    async def _report(self, name: str, begun: float) -> None:
        while True:
            seconds = round(asyncio.get_running_loop().time() - begun)
            log.warning(self._missing[name].message, action="dependency_awaited", dependency=name, seconds=seconds)
            await asyncio.sleep(REPORT_INTERVAL)

    def _end_reporting(self) -> None:
        reporting, self._reporting = self._reporting, None
        if reporting is not None:
            reporting.cancel()

    async def end(self, successor: HttpServer | None = None) -> None:
        """Leave the port to the successor, which starts next: all dependencies are back."""
        self._end_reporting()
        server, self._server = self._server, None
        if server is not None:
            if successor is not None:
                successor.take_over(server)
            await server.stop()
            log.info("all dependencies are back", action="dependencies_there")
        self._since = None
        self._missing.clear()
        self._checks.clear()

    def _app(self) -> ASGIApp:
        routes = health_routes(self._telemetry, self._checks)
        if self._gateway:
            routes.append(Route("/{path:path}", self._refuse, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]))
        return Starlette(routes=routes)

    async def _refuse(self, request: Request) -> ASGIApp:
        from runstream.service.wiring.gateway import while_waiting  # only with a gateway: it loads all of FastAPI

        return while_waiting(request.url.path, next(iter(self._missing.values())))


def _failing(error: InternalError) -> Check:
    async def check() -> None:
        raise error

    return check


def dependency_of(error: BaseException) -> str | None:
    """Return the dependency that an error, or one of its causes, says is unreachable; else None."""
    for cause in causes(error):
        if isinstance(cause, RunstreamError):
            if cause.code == "componentNotStarted" and cause.details.get("failing"):
                return str(next(iter(cause.details["failing"])))
            if cause.code == "logAwaited":
                return "log"
            if cause.code in DEPENDENCY_OF_CODE and cause.code not in _FOR_GOOD:
                return DEPENDENCY_OF_CODE[cause.code]
            if cause.code not in _WRAPPERS:
                return None  # an error of our own is more specific than its causes
        elif isinstance(cause, nats.errors.Error):
            return "nats" if is_away(cause) else None
        elif (name := _of_postgres(cause)) is not None:
            return name
    return None


def _of_postgres(error: BaseException) -> str | None:
    """Return `postgres` for an error of a lost connection; the library is not imported for it."""
    if type(error).__module__.partition(".")[0] not in ("asyncpg", "sqlalchemy"):
        return None
    from runstream.database.failures import failure

    known = failure(error)
    return DEPENDENCY_OF_CODE.get(known.code) if known is not None else None
