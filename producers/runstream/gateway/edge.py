"""Where a request enters and an error ends: one trace a request, the token, one answer, one record.

Everything behind it raises; here, and nowhere else, an error becomes an answer and a record of the log. What
fails after the headers were sent can only end the connection, and is recorded.
"""

from __future__ import annotations

import hmac
import time

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstream.errors import Kind, UnauthorizedError
from runstream.gateway.answers import error_answer, status_of, told
from runstream.telemetry import span_from
from runstream.telemetry.metrics import HTTP_DURATION, HTTP_REQUESTS

log = structlog.get_logger()

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/api/v1alpha/version", "/api/v1alpha/openapi.json", "/"})
"""What is answered without a token."""
DETAILED = "runstream-detailed-errors"
_QUIET = frozenset({Kind.NOT_EXIST, Kind.BAD_REQUEST, Kind.UNAUTHORIZED, Kind.FORBIDDEN, Kind.CONFLICT})


class Edge:
    """The outermost middleware of ours."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; everything that is not HTTP goes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        with span_from(headers.get("traceparent", ""), f"{scope['method']} {scope['path']}"):
            await self._answer(scope, receive, send, headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        started = known = False
        begun = time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal started
            if not started:
                started = True
                _measure(scope, message["status"], time.perf_counter() - begun)
            await send(message)

        try:
            if scope["path"] not in OPEN_PATHS:
                require_token(headers.get("authorization", ""), self._token)
                known = True
            await self._app(scope, receive, noting)
        except ClientDisconnect:
            log.info("the client has left", action="client_left", method=scope["method"], path=scope["path"])
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is becomes one answer and one record
            _record(error, scope)
            if not started:
                detailed = known and headers.get(DETAILED) == "1"
                await error_answer(error, detailed=detailed)(scope, receive, noting)


def _measure(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "unmatched")
    HTTP_REQUESTS.add(1, scope["method"], route, str(status))
    HTTP_DURATION.record(seconds, route)


def require_token(authorization: str, token: bytes) -> None:
    """Check that the header is `token TOKEN` or `Bearer TOKEN`, in the same time for any wrong token.

    Raises UnauthorizedError.
    """
    scheme, _, given = authorization.partition(" ")
    if not authorization:
        raise UnauthorizedError(
            "the request has no token", code="missingToken", hint="send the header Authorization: token <token>"
        )
    if scheme.lower() not in ("token", "bearer") or not hmac.compare_digest(given.strip().encode(), token):
        raise UnauthorizedError(
            "the token is not valid",
            code="invalidToken",
            hint="a local service keeps its token in service.json in its data directory",
        )


def _record(error: BaseException, scope: Scope) -> None:
    ours = told(error)
    status = status_of(ours)
    # What is away is no fault of this request: whatever waits for it says so by itself, once.
    write = log.info if ours.kind in _QUIET else log.warning if status == 503 else log.error
    write(
        ours.message,
        action="request_refused" if ours.kind in _QUIET else "request_failed",
        method=scope["method"],
        path=scope["path"],
        status=status,
        code=ours.code,
        exc_info=error,
    )
