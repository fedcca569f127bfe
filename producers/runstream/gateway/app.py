"""The gateway as one ASGI application: routes inside, the edge around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp

from runstream.gateway.answers import of_route, of_validation
from runstream.gateway.edge import Edge
from runstream.gateway.gate import Gate
from runstream.gateway.parts import Parts
from runstream.gateway.routes.actions import action_routes
from runstream.gateway.routes.creating import creating_routes
from runstream.gateway.routes.events import event_routes
from runstream.gateway.routes.executors import executor_routes
from runstream.gateway.routes.front import front_route
from runstream.gateway.routes.logs import log_routes
from runstream.gateway.routes.runs import group_routes, run_routes
from runstream.gateway.routes.service import service_routes
from runstream.gateway.routes.why import why_routes
from runstream.gateway.schemas import describe
from runstream.release import version
from runstream.telemetry.health import Check, Fact, health_routes
from runstream.telemetry.process import Telemetry

PREFIX = "/api/v1alpha"
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


def gateway_app(
    parts: Parts,
    telemetry: Telemetry,
    checks: Mapping[str, Check],
    routers: Sequence[APIRouter] = (),
    gate: Gate | None = None,
    facts: Mapping[str, Fact] = MappingProxyType({}),
) -> ASGIApp:
    """The application that serves these parts and these routers, behind the gate when there is one."""
    app = FastAPI(
        title="Runstream",
        version=version(),
        description="Publish runs, read what became of them, follow the log.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # the edge has its own
        exception_handlers={HTTPException: _route_error, RequestValidationError: _validation_error},
    )
    for router in (
        creating_routes,
        group_routes,
        event_routes,
        run_routes,
        why_routes,
        action_routes,
        log_routes,
        executor_routes,
        service_routes,
    ):
        app.include_router(router(parts), prefix=PREFIX)
    for further in routers:
        app.include_router(further, prefix=PREFIX)
    app.router.routes.extend([front_route, *health_routes(telemetry, checks, facts)])
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    if gate is not None:
        app.add_middleware(gate.around)
    app.add_middleware(Edge, token=parts.settings.token)
    return app


async def _route_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    raise of_route(error, request.url.path, _allowed(request)) from error


def _allowed(request: Request) -> set[str]:
    """Return the methods that some route takes at the request's path."""
    scope, routes = dict(request.scope), request.app.routes
    return {
        method for method in _METHODS if any(r.matches(scope | {"method": method})[0] is Match.FULL for r in routes)
    }


async def _validation_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    raise of_validation(error) from error
