"""HTTP connections with bounds: how many, how large a head, how slow a client.

uvicorn has no bound on heads: its parser appends to what it has, so that one header of 100 MiB takes 14 s of the event
loop, and two million header lines take 500 MB. Here the bytes are counted before the parser sees them.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

_PIPELINED = 64
"""Requests that a client may send before it has read the answers to earlier ones."""
_BODY_BYTES = 1024
"""What has to come of a body in `body_seconds`."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one server takes from its clients."""

    connections: int = 1024
    head_bytes: int = 64 << 10
    """Of request line and headers; of chunk extensions and trailers, too."""
    head_lines: int = 256
    """Headers and trailers of one request."""
    head_seconds: float = 10.0
    """From the connection, or the answer before, to the end of the headers."""
    body_seconds: float = 30.0
    """How long a body may stand still while we read it."""
    linger_seconds: float = 1.0
    """How long we read on after a refusal: a connection that is closed at once loses the answer on its way."""


OPEN_FILES = 65_536
"""What the limit of open files is raised to, where the system allows it: a child that closes all of them needs no
seconds for it."""


def raise_open_files() -> None:
    """Let this process open as many files as the system allows, within reason: the usual 1,024 are few connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_within(most: int) -> int:
    """Return at most `most` connections, and at most half of the files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, soft // 2))


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
    """One connection. Beyond the limits it answers once, and closes."""

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
        """When we began to wait for what we read."""
        self._quiet = 0
        """Bytes since the parser last came to the end of a head, a chunk or a message."""
        self._lines = 0
        self._received = 0
        """Bytes of the body since `_since`."""
        self._answering: RequestResponseCycle | None = None
        self._refused: _Refusal | None = None
        self._close_at: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or turn it away when there are too many."""
        super().connection_made(transport)
        most = self._limits.connections
        if len(self.connections) > most:
            full = f"the service has {most} connections, and takes no more"
            self._refuse(
                _Refusal(
                    503, full, "try again soon, or raise max_connections", code="tooManyConnections", kind="internal"
                )
            )
            if len(self.connections) > most + most // 16 + 8:  # those we wait for are bounded, too
                transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what came, piece by piece, as long as it is within the limits."""
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
        """Begin a request."""
        super().on_message_begin()
        self._lines = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        self._lines += 1
        if self._lines > self._limits.head_lines:
            self._too_large(f"{self._limits.head_lines} lines")
        elif self._reading == "head":  # a trailer is no header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
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
        """Take a part of the body."""
        if self._refused is None:
            self._received += len(body)
            self._quiet = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Have the whole request."""
        if self._refused is None:
            super().on_message_complete()
            self._reading, self._since, self._quiet = "head", self.loop.time(), 0

    def on_response_complete(self) -> None:
        """Wait for the next request, and for the rest of a body that was not read."""
        self._answering = None
        super().on_response_complete()
        self._since = self.loop.time()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refuses."""
        self._refused = self._refused or _MALFORMED

    def check(self, now: float) -> None:
        """End the connection if its client is too slow; called now and then."""
        if self._close_at is not None:
            if now >= self._close_at:
                self.transport.abort()
            return
        answering = self._answering is not None
        if self.flow.read_paused or (self._reading == "head" and not self._quiet and answering):
            self._since = now  # it is not the client that we wait for
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
        """Answer, unless an answer is on its way; read nothing more."""
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
