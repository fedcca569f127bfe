"""Health of a process over HTTP: /metrics, /healthz (alive), /readyz (each check by its name).

A check is an async callable that returns when its part is ready and raises when it is not. Checks run concurrently,
each with a time limit; /readyz answers 503 while one fails, and says which and why.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from runstream.errors import RunstreamError
from runstream.lifecycle import StrictTaskGroup, only_asked_cancellation
from runstream.telemetry.http_server import HttpServer
from runstream.telemetry.logs import without_secrets
from runstream.telemetry.process import Telemetry

Check = Callable[[], Awaitable[None]]
Fact = Callable[[], Awaitable[object]]
"""A value that /readyz shows besides the checks."""
_CHECK_SECONDS = 2.0


def health_routes(
    telemetry: Telemetry, checks: Mapping[str, Check], facts: Mapping[str, Fact] = MappingProxyType({})
) -> list[Route]:
    """Return the three routes, for an app that the process serves anyway."""

    async def metrics(_request: Request) -> Response:
        return Response(await asyncio.to_thread(telemetry.prometheus), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        results = await check_all(checks)
        ready = all(result == "ok" for result in results.values())
        status = "ready" if ready else "not ready"
        shown = {"status": status, "checks": results, **await _shown(facts)}
        return JSONResponse(shown, status_code=200 if ready else 503)

    return [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]


def health_app(
    telemetry: Telemetry, checks: Mapping[str, Check], facts: Mapping[str, Fact] = MappingProxyType({})
) -> Starlette:
    """Return the three routes as an app of their own."""
    return Starlette(routes=health_routes(telemetry, checks, facts))


async def _shown(facts: Mapping[str, Fact]) -> dict[str, object]:
    """Return the facts that are available now; a check says why one is not."""
    shown: dict[str, object] = {}
    for name, fact in facts.items():
        with contextlib.suppress(TimeoutError, RunstreamError):
            async with asyncio.timeout(_CHECK_SECONDS):
                shown[name] = await fact()
    return shown


async def check_all(checks: Mapping[str, Check], seconds: float = _CHECK_SECONDS) -> dict[str, str]:
    """Run all checks; return each one's name with `ok` or a sentence that says what is wrong."""
    names = sorted(checks)
    async with StrictTaskGroup() as group:
        tasks = [group.create_task(_checked(checks[name], seconds)) for name in names]
    return {name: task.result() for name, task in zip(names, tasks, strict=True)}


async def _checked(check: Check, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            with only_asked_cancellation("health check"):
                await check()
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except Exception as error:  # noqa: BLE001 - whatever a check raises is its answer
        return without_secrets(str(error)) or type(error).__name__
    return "ok"


class HealthServer(HttpServer):
    """A server of the three routes, for a process without other HTTP. Loopback by default."""

    name = "health"

    def __init__(
        self,
        telemetry: Telemetry,
        checks: Mapping[str, Check],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        facts: Mapping[str, Fact] = MappingProxyType({}),
    ) -> None:
        super().__init__(health_app(telemetry, checks, facts), host, port, grace_seconds=1.0)
