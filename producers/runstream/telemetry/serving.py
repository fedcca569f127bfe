"""An HTTP server as a part of a process: it starts, says its port, and stops in order, like every other part.

Signals are the process's business, so uvicorn's own handling of them is off. The socket is bound here, so that
a port in use is a clear error before anything else has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from runstream.errors import ConflictError, InternalError
from runstream.lifecycle import Component
from runstream.telemetry.connections import BoundedHttp, HttpLimits

CHECK_SECONDS = 0.5
"""Between two looks at which connections are too slow."""

_INCOMPLETE = "ASGI callable returned without completing response."


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether uvicorn's record says what the application has not recorded itself."""
    return record.msg != _INCOMPLETE


logging.getLogger("uvicorn.error").addFilter(_is_news)


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers, that says when it serves."""

    def __init__(self, config: uvicorn.Config, serving: asyncio.Event) -> None:
        super().__init__(config)
        self._serving = serving

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as error:  # uvicorn would end the whole process
            raise InternalError(
                "the HTTP server did not start", code="httpNotStarted", hint="the log record before this says why"
            ) from error
        self._serving.set()


class HttpServer(Component):
    """Serves an ASGI app on a port; 0 takes any free one. `port` and `url` are known once it is started."""

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
        self._limits = limits or HttpLimits()
        self.host = host
        self.port = port
        self._app = app
        self._grace_seconds = grace_seconds

    @property
    def url(self) -> str:
        """Where it is reached, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def run(self) -> None:
        """Serve until stopped. Raises ConflictError when the port cannot be taken."""
        with _bound(self.host, self.port) as listening:
            self.port = listening.getsockname()[1]
            http: Any = partial(BoundedHttp, limits=self._limits)
            config = uvicorn.Config(
                self._app,
                http=http,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, round(self._grace_seconds)),
            )
            server = _Server(config, self.started)
            besides = [asyncio.create_task(self._stop(server)), asyncio.create_task(_check_connections(server))]
            try:
                await server.serve([listening])
            finally:
                for task in besides:
                    task.cancel()

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
