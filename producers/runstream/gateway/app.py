"""The gateway: one ASGI application, served as a component of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp

from runstream.config.store import ConfigStore
from runstream.database import Database
from runstream.database.freshness import Freshness
from runstream.evaluation.reader import ConfigReader
from runstream.gateway.access import PREFIX
from runstream.gateway.authentication import Authenticator
from runstream.gateway.config_requests import POSITION_HEADER as CONFIG_POSITION_HEADER
from runstream.gateway.context import CacheStore, GatewayContext, GitRepositories, Sightings, StepLogSource
from runstream.gateway.cursors import CURSOR_HEADER
from runstream.gateway.errors import route_error, validation_error
from runstream.gateway.failed_logins import FailedLogins
from runstream.gateway.git_access import GitAccess
from runstream.gateway.git_http import GitHttp
from runstream.gateway.middleware import Admission, MaintenanceGate, RequestMiddleware
from runstream.gateway.openapi import describe
from runstream.gateway.reads import DatabaseReads, PastRuns
from runstream.gateway.routes.audit import audit_routes
from runstream.gateway.routes.badges import badge_routes
from runstream.gateway.routes.caches import cache_routes
from runstream.gateway.routes.commit_runs import commit_run_routes
from runstream.gateway.routes.events import event_routes
from runstream.gateway.routes.flaky import flaky_routes
from runstream.gateway.routes.groups import run_group_routes
from runstream.gateway.routes.history import history_routes
from runstream.gateway.routes.host_accounts import host_account_routes
from runstream.gateway.routes.logins import login_routes, login_url
from runstream.gateway.routes.logs import log_routes
from runstream.gateway.routes.organizations import organization_routes
from runstream.gateway.routes.owned_runs import owned_run_routes
from runstream.gateway.routes.projectgroups import project_group_routes
from runstream.gateway.routes.projects import project_routes
from runstream.gateway.routes.remotesources import remote_source_routes
from runstream.gateway.routes.runs import (
    action_routes,
    creating_routes,
    group_routes,
    in_maintenance,
    run_routes,
    why_routes,
)
from runstream.gateway.routes.secrets import secret_routes
from runstream.gateway.routes.service import executor_routes, service_routes
from runstream.gateway.routes.users import user_routes
from runstream.gateway.routes.webhooks import receiving_routes
from runstream.gateway.runs.actions import Actions
from runstream.gateway.runs.create import RunCreation, SharedData
from runstream.gateway.runs.restart import Restarts
from runstream.gateway.runs.why import Asker, Explainer
from runstream.gateway.sessions import CSRF_HEADER, Records, Sessions
from runstream.gateway.web_page import page_routes
from runstream.git.cleaning import RepositoryCleaning
from runstream.lifecycle import Component
from runstream.log.port import Log
from runstream.maintenance.mode import Mode, Parkable
from runstream.release import version
from runstream.sealing import Keyring
from runstream.settings import Settings
from runstream.telemetry.health import Check, Fact, health_routes
from runstream.telemetry.http_server import HttpLimits, HttpServer
from runstream.telemetry.process import Telemetry

_CORS_HEADERS = (
    "Accept",
    "Accept-Encoding",
    "Authorization",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    CSRF_HEADER,
    CURSOR_HEADER,
    "Runstream-Position",
    CONFIG_POSITION_HEADER,
)
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


_ROUTERS: tuple[Callable[[GatewayContext], APIRouter], ...] = (
    creating_routes,
    commit_run_routes,
    owned_run_routes,
    badge_routes,
    group_routes,
    event_routes,
    run_routes,
    history_routes,
    flaky_routes,
    run_group_routes,
    why_routes,
    action_routes,
    log_routes,
    cache_routes,
    executor_routes,
    service_routes,
    user_routes,
    organization_routes,
    project_group_routes,
    project_routes,
    secret_routes,
    remote_source_routes,
    audit_routes,
    login_routes,
    host_account_routes,
)
"""Runs are created by the most frequent requests, whose routes come first."""


def api_routers(context: GatewayContext) -> list[APIRouter]:
    """Return the routes of the API. They ask the context when they are requested, not before."""
    return [make(context) for make in _ROUTERS]


def gateway_app(
    context: GatewayContext,
    telemetry: Telemetry,
    checks: Mapping[str, Check],
    routers: Sequence[APIRouter],
    gate: MaintenanceGate | None = None,
    facts: Mapping[str, Fact] = MappingProxyType({}),
) -> ASGIApp:
    """Return the application: the routes of `routers`, all behind `gate` where there is one."""
    app = FastAPI(
        title="Runstream",
        version=version(),
        description="Publish runs, read what became of them, follow the log.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # the middleware has its own
        exception_handlers={HTTPException: _route_error, RequestValidationError: _validation_error},
    )
    routers = [*routers, receiving_routes(context)]
    app.router.routes.extend(route for router in routers for route in router.routes)
    if context.git is not None:
        access = GitAccess(context, partial(datetime.now, UTC))
        app.mount("/repos", GitHttp(context.git.server, access.authorize))
    app.router.routes.extend([*page_routes(), *health_routes(telemetry, checks, facts)])
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    if gate is not None:
        app.add_middleware(gate.around)
    app.add_middleware(RequestMiddleware, authenticator=_authenticator(context))
    if context.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=context.settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=_CORS_HEADERS,
            expose_headers=[CSRF_HEADER, CURSOR_HEADER, "Runstream-Position", CONFIG_POSITION_HEADER],
            allow_credentials=True,
        )
    return app


def _authenticator(context: GatewayContext) -> Authenticator:
    failures = context.sessions.failures if context.sessions is not None else FailedLogins()
    return Authenticator(context.settings.token, context.store, context.sessions, failures=failures)


async def _route_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    raise route_error(error, request.url.path, _allowed(request)) from error


def _allowed(request: Request) -> set[str]:
    """Return the methods that some route takes at the request's path."""
    scope, routes = dict(request.scope), request.app.routes
    return {
        method for method in _METHODS if any(r.matches(scope | {"method": method})[0] is Match.FULL for r in routes)
    }


async def _validation_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    raise validation_error(error) from error


@dataclass(frozen=True, slots=True)
class Backends:
    """The services behind the gateway: the log, the database and those that it asks."""

    log: Log
    database: Database
    past: PastRuns
    step_logs: StepLogSource
    caches: CacheStore
    shared: SharedData
    questions: Asker
    sightings: Sightings | None = None
    config: ConfigStore | None = None
    """Users, projects and secrets; without it, requests that need them are refused."""
    git: GitRepositories | None = None
    """Mirrors and the repositories of users; without them, requests that need them are refused."""
    records: Records | None = None
    """Sessions of browsers; without it, there are tokens alone."""


class Gateway(HttpServer):
    """An HTTP server of the API on `settings.host` and `settings.port`; `url` is its address once it is started.

    /readyz shows `checks` and `facts` of the process. Open streams end when it stops.
    """

    name = "gateway"

    def __init__(
        self,
        settings: Settings,
        behind: Backends,
        telemetry: Telemetry,
        checks: Mapping[str, Check] | None = None,
        *,
        keyring: Keyring | None = None,
        mode: Mode | None = None,
        routers: Sequence[APIRouter] = (),
        facts: Mapping[str, Fact] = MappingProxyType({}),
    ) -> None:
        """Without `keyring` it refuses secrets; without `mode` it is never in maintenance.

        It serves `routers` beside its own routes.
        """
        stopping = asyncio.Event()
        log, keyring = behind.log, keyring or Keyring()
        self._freshness = Freshness(behind.database)
        configs = ConfigReader()
        reads = DatabaseReads(behind.database, self._freshness, log)
        context = GatewayContext(
            settings=settings,
            log=log,
            reads=reads,
            past=behind.past,
            step_logs=behind.step_logs,
            caches=behind.caches,
            creation=RunCreation(log, partial(datetime.now, UTC), behind.shared, keyring),
            actions=Actions(log, partial(datetime.now, UTC)),
            explainer=Explainer(log, behind.questions),
            restarts=Restarts(log, reads, configs),
            configs=configs,
            keyring=keyring,
            stopping=stopping,
            sightings=behind.sightings,
            store=behind.config,
            git=behind.git,
            sessions=_sessions(settings, behind),
        )
        self._context = context
        self._cleaning = _cleaning(behind.git)
        self._admission: Component | None = None
        gate = None
        if mode is not None:
            gate = MaintenanceGate(mode.why, in_maintenance)
            self._admission = Parkable("gateway", mode, partial(_admission, gate))
        app = gateway_app(context, telemetry, checks or {}, [*api_routers(context), *routers], gate, facts)
        limits = HttpLimits(connections=settings.max_connections)
        super().__init__(app, settings.host, settings.port, limits=limits)
        self.stopping = stopping

    async def admin_login_link(self) -> str:
        """Return the URL of a link that logs the holder of the admin token in, once; empty in a gateway without logins.

        Raises UnavailableError.
        """
        if self._context.sessions is None:
            return ""
        secret, _ = await self._context.sessions.link("")
        return login_url(self._context.settings.exposed_url or self.url, secret)

    async def run(self) -> None:
        """Serve until `stopping` is set."""
        async with AsyncExitStack() as stack:
            for part in (self._freshness, self._cleaning, self._admission):
                if part is not None:
                    await stack.enter_async_context(part.serving())
            await super().run()


def _sessions(settings: Settings, behind: Backends) -> Sessions | None:
    if behind.records is None:
        return None
    return Sessions(
        behind.records,
        settings.token,
        behind.config,
        settings.session_seconds,
        not settings.insecure_cookies,
        settings.cors_origins,
    )


def _cleaning(git: GitRepositories | None) -> RepositoryCleaning | None:
    if git is None:
        return None
    return RepositoryCleaning(git.mirrors, git.server, git.expiry, partial(datetime.now, UTC))


async def _admission(gate: MaintenanceGate) -> Admission:
    return Admission(gate)
