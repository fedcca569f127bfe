"""The outer layer of the API: trace, token, metrics and errors of every request, and the gate of maintenance mode.

Routes raise; here, and nowhere else, an error becomes a response and one log record. A failure after the headers are
sent is logged and ends the connection.

The gate is of the service `runs`. In its maintenance the gate passes the page, health, maintenance, export and import,
and what is about users, projects and secrets alone, which have a maintenance of their own. Everything else is 503, but
for the question why a run waits, since maintenance is the answer. When the gate closes, requests inside run to their
end, streams end as if their client had left, and a request whose body is still to come is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import unquote

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstream.errors import BadRequestError, InternalError, Kind
from runstream.gateway import web_page
from runstream.gateway.access import PREFIX, WITHOUT_LOGIN, of_config
from runstream.gateway.authentication import Authenticator
from runstream.gateway.errors import error_response, public_error, status_of
from runstream.gateway.failed_logins import address_of
from runstream.gateway.sender import AUTHENTICATE, NO_SENDER, SENDER
from runstream.lifecycle import Component
from runstream.log import patience
from runstream.telemetry import span_from
from runstream.telemetry.metrics import HTTP_DURATION, HTTP_REQUESTS

log = structlog.get_logger()

REPOSITORIES = "/repos/"
"""Prefix of the paths that git asks for, with a user and a password; `GitHttp` authorizes these requests."""
_PAGE = f"{web_page.PREFIX}/"
_WITH_REFERENCES = tuple(
    f"{PREFIX}/{first}/".encode()
    for first in ("badges", "orgs", "projectgroups", "projects", "remotesources", "user", "users")
)
"""Beginnings of the paths with segments that name a user, an organization, a group or a project."""
_BADGES = f"{PREFIX}/badges/"
DETAILED = "runstream-detailed-errors"
_QUIET = frozenset({Kind.NOT_EXIST, Kind.BAD_REQUEST, Kind.UNAUTHORIZED, Kind.FORBIDDEN, Kind.CONFLICT})


class RequestMiddleware:
    """The outermost middleware: trace, sender, metrics, errors."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; pass through what is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope, headers = _own_segments(scope), Headers(scope=scope)
        with span_from(headers.get("traceparent", ""), f"{scope['method']} {scope['path']}"):
            await self._answer(scope, receive, send, headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        started = False
        sender, address = NO_SENDER, address_of(scope)
        begun = time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal started
            if not started:
                started = True
                _measure(scope, message["status"], time.perf_counter() - begun)
                for name, value in sender.headers:
                    MutableHeaders(scope=message).append(name, value)
            await send(message)

        try:
            _require_no_nul(scope)
            if not _without_login(scope["method"], scope["path"]):
                authenticate = partial(self._authenticator.sender, scope["method"], headers, address)
                sender, scope[AUTHENTICATE] = await authenticate(), authenticate
                scope[SENDER] = sender
            with patience.of_request():
                await self._app(scope, receive, noting)
        except ClientDisconnect:
            log.info("the client has left", action="client_left", method=scope["method"], path=scope["path"])
        except Exception as raised:  # noqa: BLE001 - every error becomes one response and one log record
            error = self._authenticator.failures.answer(address, raised)
            _record(error, scope)
            if not started:
                detailed = sender.actor.admin and headers.get(DETAILED) == "1"
                to_git = headers.get("user-agent", "").startswith("git/")
                await error_response(error, detailed=detailed, to_git=to_git)(scope, receive, noting)


def _without_login(method: str, path: str) -> bool:
    # A badge is in a document for everybody; a browser that logs in elsewhere may send what is not valid here.
    if method == "GET" and path.startswith(_BADGES):
        return True
    return (method, path) in WITHOUT_LOGIN or path == web_page.PREFIX or path.startswith((_PAGE, REPOSITORIES))


def _measure(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "unmatched").removeprefix(PREFIX)
    HTTP_REQUESTS.add(1, scope["method"], route, str(status))
    HTTP_DURATION.record(seconds, route)


def _require_no_nul(scope: Scope) -> None:
    """Raise BadRequestError for a path or query with NUL: no name has it, and Postgres refuses it in words of its own.

    A client cannot send it in a header, and `requests.decoded` refuses it in a body.
    """
    for place, has_nul in (("path", "\0" in scope["path"]), ("query", b"%00" in scope["query_string"])):
        if has_nul:
            raise BadRequestError(
                f"the {place} has the character NUL (%00), which no name contains", code="nulCharacter"
            )


def _own_segments(scope: Scope) -> Scope:
    """Return the scope of a request with a path whose segments are those of the raw path.

    A / that is escaped in a reference (`/projects/org%2Facme%2Fweb/secrets`) is not one between segments: it stays
    escaped, and `config_requests.Ref` reads it.
    """
    raw: bytes = scope.get("raw_path") or b""
    if b"%" not in raw or not raw.startswith(_WITH_REFERENCES):
        return scope
    segments = (unquote(one).replace("%", "%25").replace("/", "%2F") for one in raw.decode("latin-1").split("/"))
    return {**scope, "path": "/".join(segments)}


def _record(error: BaseException, scope: Scope) -> None:
    ours = public_error(error)
    status = status_of(ours)
    # A dependency that is away is no fault of this request, and the part that waits for it has logged that once.
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


ALWAYS = frozenset({"/", "/healthz", "/readyz", "/metrics"})
ALWAYS_BELOW = (
    web_page.PREFIX,
    *(f"{PREFIX}/{service}" for service in ("auth", "maintenance", "export", "import", "epochs", "health")),
)
_DISCONNECT: Message = {"type": "http.disconnect"}


class MaintenanceGate:
    """A middleware that passes requests while it is open; it starts closed."""

    def __init__(
        self, why: Callable[[], str], instead: Callable[[str, str, str], Response | None] = lambda *_: None
    ) -> None:
        """`why` returns the reason, for the responses to refused requests.

        `instead(method, path, reason)` may return another response to such a request.
        """
        self.is_open = False
        self._why = why
        self._instead = instead
        self.inside = 0
        """Number of requests inside that have not ended."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._receiving: set[asyncio.Timeout] = set()

    def open(self) -> None:
        """Pass requests."""
        self.is_open = True

    def close(self) -> None:
        """Refuse new requests, and end those that wait for their client."""
        self.is_open = False
        now = asyncio.get_running_loop().time()
        for waiting in self._receiving:
            waiting.reschedule(now)

    async def empty(self) -> None:
        """Wait until no request is inside."""
        await self._empty.wait()

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return the application behind this gate."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or _always(scope["method"], scope["path"]):
                await app(scope, receive, send)
            elif not self.is_open:
                await self._answer(scope["method"], scope["path"])(scope, receive, send)
            else:
                await self._through(app, scope, receive, send)

        return guarded

    async def _through(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside += 1
        self._empty.clear()
        try:
            await app(scope, self._until_closed(receive), send)
        finally:
            self.inside -= 1
            if not self.inside:
                self._empty.set()

    def _until_closed(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """Return what the client sends; once the gate is closed, a disconnect."""
        whole = False

        async def received() -> Message:
            nonlocal whole
            try:
                async with asyncio.timeout(None if self.is_open else 0) as waiting:
                    self._receiving.add(waiting)
                    try:
                        message = await receive()
                    finally:
                        self._receiving.discard(waiting)
            except TimeoutError as error:
                if whole:
                    return _DISCONNECT
                raise self._refusal() from error
            whole = whole or not message.get("more_body", False)
            return message

        return received

    def _answer(self, method: str, path: str) -> Response:
        if (answer := self._instead(method, path, self._why())) is None:
            answer = error_response(self._refusal())
        return answer

    def _refusal(self) -> InternalError:
        return InternalError(
            f"the service is in maintenance{self._why()}",
            code="maintenance",
            hint="try again later; `runstream maintenance status` shows how far it is",
        )


class Admission(Component):
    """The component that keeps the gate open while it runs; maintenance parks it."""

    name = "gateway"

    def __init__(self, gate: MaintenanceGate) -> None:
        super().__init__()
        self._gate = gate

    async def run(self) -> None:
        """Keep the gate open until `stopping` is set."""
        self._gate.open()
        self.started.set()
        await self.stopping.wait()
        self._gate.close()

    async def drain(self, seconds: float | None) -> None:
        """Close the gate, and wait for the requests inside, each of which is bounded."""
        self._gate.close()
        try:
            await self._gate.empty()
        except asyncio.CancelledError:
            self._gate.open()
            raise

    @property
    def under_way(self) -> int:
        """Number of requests inside."""
        return self._gate.inside


def _always(method: str, path: str) -> bool:
    below = any(path == one or path.startswith(f"{one}/") for one in ALWAYS_BELOW)
    return path in ALWAYS or below or of_config(method, path)
