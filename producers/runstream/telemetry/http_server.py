"""An HTTP server as a component of a process, with bounds on its connections: number, size of heads, slow clients.

The process handles signals, so uvicorn's own handlers are off. The socket is bound here, so that a port in use is a
clear error before anything else has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import orjson
import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from runstream.errors import ConflictError
from runstream.lifecycle import BackgroundTasks, Component
from runstream.open_files import connections_within

CHECK_SECONDS = 0.5
"""Interval between checks for slow connections."""

_ABORT_SECONDS = 1.0
"""Maximum time for cancelled requests to end, in seconds."""
_INCOMPLETE = "ASGI callable returned without completing response."
_PIPELINED = 64
"""Requests that a client may send before it has read the answers to earlier ones."""
_BODY_BYTES = 1024
"""Minimum progress of a body in `body_seconds`, in bytes."""


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for the record of uvicorn that repeats what the application has logged itself."""
    return record.msg != _INCOMPLETE


logging.getLogger("uvicorn.error").addFilter(_is_news)


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers; it sets `serving` once it serves, and leaves nothing when it is cancelled."""

    def __init__(self, config: uvicorn.Config, serving: asyncio.Event) -> None:
        super().__init__(config)
        self._serving = serving

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._serving.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            await self._abort()

    async def _abort(self) -> None:
        """End what an orderly shutdown has not: uvicorn does nothing of it when it is cancelled."""
        for server in getattr(self, "servers", ()):
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        tasks = set(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_ABORT_SECONDS)
        await asyncio.sleep(0)  # the loop closes the sockets in its next round


class HttpServer(Component):
    """A server of an ASGI app on a port; 0 for any free one. `port` and `url` are known once it is started.

    The app gets no lifespan events: what it needs is started and stopped by its process.
    """

    name = "http"

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        grace_seconds: float = 3.0,
        limits: HttpLimits | None = None,
    ) -> None:
        super().__init__()
        limits = limits or HttpLimits()
        self.limits = replace(limits, connections=connections_within(limits.connections))
        self.host = host
        self.port = port
        self._app = app
        self._grace_seconds = grace_seconds
        self._listening: socket.socket | None = None

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def take_over(self, server: HttpServer) -> None:
        """Serve on the socket of a server that stops next; connections that come in between wait for an answer."""
        if server._listening is not None:
            self._listening = server._listening.dup()

    async def run(self) -> None:
        """Serve until stopped. Raises ConflictError when the port cannot be taken."""
        with self._listening or _bound(self.host, self.port) as self._listening:
            listening = self._listening
            self.port = listening.getsockname()[1]
            http: Any = partial(BoundedHttp, limits=self.limits)
            config = uvicorn.Config(
                self._app,
                http=http,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, round(self._grace_seconds)),
            )
            server = _Server(config, self.started)
            async with BackgroundTasks() as background:
                background.once(self._stop(server))
                background.keep(_check_connections(server))
                await server.serve([listening])

    async def _stop(self, server: uvicorn.Server) -> None:
        await self.stopping.wait()
        server.should_exit = True


async def _check_connections(server: uvicorn.Server) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        now = loop.time()
        for connection in list(server.server_state.connections):
            if isinstance(connection, BoundedHttp):
                connection.check(now)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # of each connection: a dead client is noticed
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConflictError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            code="portNotAvailable",
            details={"host": host, "port": port},
            hint="choose another port, or 0 for any free one",
        ) from error
    return listening


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits on the clients of one server."""

    connections: int = 1024
    """Maximum number of connections. A server lowers it to half of the files that its process may open."""
    head_bytes: int = 64 << 10
    """Maximum size of request line and headers; also of chunk extensions and trailers."""
    head_lines: int = 256
    """Maximum number of headers and trailers of a request."""
    head_seconds: float = 10.0
    """Maximum time from the connection, or the previous response, to the end of the headers."""
    body_seconds: float = 30.0
    """Maximum pause of a body while we read it."""
    linger_seconds: float = 1.0
    """Time for which we keep reading after a refusal: closing at once would lose the response on its way."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    message: str
    hint: str
    code: str
    kind: str = "bad-request"

    def answer(self) -> bytes:
        entry = {"code": self.code, "details": {}, "message": self.message, "hint": self.hint, "kind": self.kind}
        body = orjson.dumps([entry])
        retry = b"retry-after: 5\r\n" if self.status == 503 else b""
        return b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b" % (
            STATUS_LINE[self.status],
            len(body),
            retry,
            body,
        )


_TOO_LATE = _Refusal(408, "the request did not come in time", "send it again, without pauses", code="requestTimeout")
_MALFORMED = _Refusal(
    400, "the request is not HTTP/1.1", "send HTTP/1.1, or check the proxy between", code="malformedRequest"
)


class BoundedHttp(HttpToolsProtocol):
    """One connection; a client that exceeds a limit gets one response, and the connection closes.

    uvicorn has no limit on heads: its parser appends to what it has, so that one header of 100 MiB takes 14 s of the
    event loop, and two million header lines take 500 MB. Here bytes are counted before the parser sees them.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: HttpLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._reading: Literal["head", "body"] = "head"
        self._since = self.loop.time()
        """Time at which the current wait for the client began."""
        self._quiet = 0
        """Bytes since the end of the last head, chunk or message."""
        self._lines = 0
        self._received = 0
        """Bytes of the body since `_since`."""
        self._answering: RequestResponseCycle | None = None
        self._refused: _Refusal | None = None
        self._close_at: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it when there are too many."""
        super().connection_made(transport)
        most = self._limits.connections
        if len(self.connections) > most:
            full = f"the service has {most} connections and accepts no more"
            self._refuse(
                _Refusal(
                    503, full, "try again soon, or raise max_connections", code="tooManyConnections", kind="internal"
                )
            )
            if len(self.connections) > most + most // 16 + 8:  # connections that linger are bounded, too
                transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse the data in pieces, as long as it stays within the limits."""
        self._unset_keepalive_if_required()
        while data and self._close_at is None:
            size = self._limits.head_bytes - self._quiet
            piece, data = data[:size], data[size:]
            self._quiet += len(piece)
            super().data_received(piece)
            if self._quiet >= self._limits.head_bytes:
                self._too_large(f"{self._limits.head_bytes} bytes")
            if self._refused is not None and self._close_at is None:
                self._refuse(self._refused)

    def on_message_begin(self) -> None:
        """Start a request."""
        super().on_message_begin()
        self._lines = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Accept a header or a trailer."""
        self._lines += 1
        if self._lines > self._limits.head_lines:
            self._too_large(f"{self._limits.head_lines} lines")
        elif self._reading == "head":  # trailers are not headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the response."""
        if len(self.pipeline) >= _PIPELINED:
            self._refused = _Refusal(
                400,
                "the client sends requests without reading answers",
                "read the answers first",
                code="tooManyRequests",
            )
        if self._refused is None:
            super().on_headers_complete()
            self._reading, self._since, self._received, self._quiet = "body", self.loop.time(), 0, 0

    def on_body(self, body: bytes) -> None:
        """Accept a part of the body."""
        if self._refused is None:
            self._received += len(body)
            self._quiet = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Complete the request."""
        if self._refused is None:
            super().on_message_complete()
            self._reading, self._since, self._quiet = "head", self.loop.time(), 0

    def on_response_complete(self) -> None:
        """Wait for the next request, or the unread rest of a body."""
        self._answering = None
        super().on_response_complete()
        self._since = self.loop.time()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser rejects."""
        self._refused = self._refused or _MALFORMED

    def check(self, now: float) -> None:
        """End the connection if its client is too slow; called every CHECK_SECONDS."""
        if self._close_at is not None:
            if now >= self._close_at:
                self.transport.abort()
            return
        answering = self._answering is not None
        if self.flow.read_paused or (self._reading == "head" and not self._quiet and answering):
            self._since = now  # we are not waiting for the client
        elif self._reading == "head":
            if now - self._since >= self._limits.head_seconds:
                if self._quiet:
                    self._refuse(_TOO_LATE)
                else:
                    self.transport.close()
        elif not answering:
            if now - self._since >= self._limits.linger_seconds:
                self.transport.abort()
        elif now - self._since >= self._limits.body_seconds:
            if self._received < _BODY_BYTES:
                self._refuse(_TOO_LATE)
            self._since, self._received = now, 0

    def _too_large(self, limit: str) -> None:
        self._refused = self._refused or _Refusal(
            431,
            f"the request's headers have more than {limit}",
            "send fewer or shorter headers",
            code="headersTooLarge",
        )

    def _refuse(self, refusal: _Refusal) -> None:
        """Send the refusal, unless a response has started; read no further request."""
        answering = self._answering
        if answering is not None:
            answering.disconnected = True
            answering.message_event.set()
        self.pipeline.clear()
        if answering is not None and answering.response_started:
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(refusal.answer())
            self._linger()

    def _linger(self) -> None:
        self._close_at = self.loop.time() + self._limits.linger_seconds
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
