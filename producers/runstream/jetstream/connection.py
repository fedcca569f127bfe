"""How a process is connected to NATS: it reconnects for ever, and what happens is one log record each.

A server that does not answer a ping for 3 seconds is left, and so is one whose streams do not answer, where the cluster
has others (`leaving`). The library's own pings wait behind what cannot be sent: alone they would notice a link that
swallows everything after many minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client, Server

from runstream.errors import InternalError
from runstream.jetstream.api import header_lines
from runstream.jetstream.failover import Answers
from runstream.telemetry.logs import without_secrets

CONNECT_SECONDS = 6.0
_RECONNECT_WAIT_SECONDS = 0.2
_PENDING_BYTES = 32 << 20
_PING_SECONDS = 1.0
SILENCE_SECONDS = 3.0
"""How long a server may take to answer a ping."""
_AVOID_SECONDS = 30.0
"""How long a server that was left is tried after the others."""
log = structlog.get_logger()


@contextlib.asynccontextmanager
async def nats_connection(url: str, name: str = "runstream", seconds: float = CONNECT_SECONDS) -> AsyncIterator[Client]:
    """A connection for as long as the block lasts.

    `url` may name several servers, separated by commas. Raises InternalError when none can be reached within
    `seconds`, or the credentials are refused.
    """
    said = _Said()
    connecting = asyncio.create_task(_connect(url, name, said))
    asking = asyncio.create_task(_ask_why(url, name, said))
    refused = asyncio.create_task(said.refused.wait())
    try:
        # A server that is not there yet is tried again; one that refuses the credentials will go on to do so.
        async with asyncio.timeout(seconds):
            await asyncio.wait({connecting, refused}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise nats.errors.AuthorizationError
            client = await connecting
    except (TimeoutError, OSError, nats.errors.Error, ValueError) as error:
        raise _unreachable(url, said.last or error) from error
    finally:
        refused.cancel()
        asking.cancel()
        connecting.cancel()
    said.connected = True
    pinging = asyncio.create_task(_ping(client), name="NATS ping")
    try:
        yield client
    finally:
        said.closing = True
        pinging.cancel()
        await client.close()


async def _ping(client: _Client) -> None:
    """Leave a server that does not answer, until cancelled."""
    while True:
        await asyncio.sleep(_PING_SECONDS)
        if not client.is_connected:
            continue
        reconnects = client.stats["reconnects"]
        # Not awaited directly: it is a `wait_for`, which in Python 3.11 swallows a cancellation.
        asking = asyncio.ensure_future(client.rtt(round(SILENCE_SECONDS * 2)))
        try:
            await asyncio.wait({asking}, timeout=SILENCE_SECONDS)
            # A process that was stopped meanwhile finds the answer only now.
            await asyncio.sleep(0)
            if not asking.done() and client.stats["reconnects"] == reconnects:
                await client.leave(f"it did not answer a ping within {SILENCE_SECONDS:g} seconds")
        finally:
            asking.cancel()
            asking.add_done_callback(_forget)


def _forget(asked: asyncio.Future[float]) -> None:
    """Take note of an error that nobody waits for."""
    if not asked.cancelled():
        asked.exception()


async def _connect(url: str, name: str, said: _Said) -> _Client:
    """A client that is connected; tries for ever. What failed is closed again."""
    while True:
        client = _Client()
        try:
            await client.connect(
                servers=_servers(url),
                name=name,
                error_cb=said.error,
                disconnected_cb=said.disconnected,
                reconnected_cb=client.reconnected(said),
                closed_cb=said.closed,
                reconnect_to_server_handler=client.choose,
                connect_timeout=2,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_WAIT_SECONDS,  # type: ignore[arg-type] # it is slept: fractions work
                ping_interval=5,
                max_outstanding_pings=2,
                pending_size=_PENDING_BYTES,
                flusher_queue_size=8192,
            )
        except BaseException as error:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                await client.close()
            if _is_refusal(error) or not isinstance(error, (OSError, nats.errors.Error)):
                raise
            await asyncio.sleep(_RECONNECT_WAIT_SECONDS)
        else:
            return client


async def _ask_why(url: str, name: str, said: _Said) -> None:
    """Whenever a server cut the connection, ask it in a way that its answer is read; `said` is told.

    The client sends more before it reads what came of its credentials. A server that refuses them and closes on what
    it has not read resets the connection, and what it said is lost. With `verbose` the client awaits the answer first.
    """
    while True:
        await said.cut.wait()
        said.cut.clear()
        client = Client()
        with contextlib.suppress(OSError, nats.errors.Error):  # `said` heard it
            await client.connect(
                servers=_servers(url),
                name=name,
                error_cb=said.error,
                connect_timeout=2,
                allow_reconnect=False,
                verbose=True,
            )
        await client.close()
        await asyncio.sleep(_RECONNECT_WAIT_SECONDS)


def _servers(url: str) -> list[str]:
    return [part.strip() for part in url.split(",")]


class _Client(Client):
    """Leaves servers that do not answer, and reads headers in a quarter of the time: every commit has four or more."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = Answers(self._leave_if_there_are_others)
        self._left: dict[str, float] = {}
        self._leaving: asyncio.Task[None] | None = None

    async def leave(self, why: str) -> None:
        """Go to another server; to this one again where it is the only one."""
        if self.is_connected:
            server = self.connected_url.netloc.rpartition("@")[2] if self.connected_url else ""
            log.warning(f"leaving NATS at {server}: {why}", action="nats_left", server=server, why=why)
            self._left[server] = time.monotonic()
            await self.force_reconnect()

    def _leave_if_there_are_others(self, why: str) -> None:
        if len(self.servers) > 1:
            self._leaving = asyncio.get_running_loop().create_task(self.leave(why))

    def choose(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        """Choose the server to connect to, and how long to wait before: one that was left comes after the others."""
        now = time.monotonic()

        def tried(server: Server) -> tuple[int, float]:
            left = self._left.get(server.uri.netloc.rpartition("@")[2], 0.0)
            return server.reconnects + (3 if left and now - left < _AVOID_SECONDS else 0), left

        chosen = min(servers, key=tried)
        return chosen, _RECONNECT_WAIT_SECONDS if chosen.reconnects else 0.0

    def reconnected(self, said: _Said) -> Callable[[], Awaitable[None]]:
        """Return what is called after each new connection."""

        async def connected_again() -> None:
            self.answers.connected()
            await said.reconnected()

        return connected_again

    async def _attempt_reconnect(self) -> None:
        # Not public. The library waits until all is sent that was written, which over a dead link takes many minutes.
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        await super()._attempt_reconnect()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        # Not public: in a version of the library that names it otherwise, this is not used, and nothing else changes.
        return header_lines(raw)


class _Said:
    """What the client reports, as log records; before the first connection only the last is kept."""

    def __init__(self) -> None:
        self.last: Exception | None = None
        self.refused = asyncio.Event()
        self.cut = asyncio.Event()
        self.connected = False
        self.closing = False

    async def error(self, error: Exception) -> None:
        if not self.refused.is_set():  # closing what was refused may fail too: the refusal is what to tell
            self.last = error
        if _is_refusal(error):
            self.refused.set()
        elif isinstance(error, ConnectionResetError | BrokenPipeError):
            self.cut.set()
        if self.connected and not self.closing:
            log.warning("NATS reported an error", action="nats_error", error=str(error) or type(error).__name__)

    async def disconnected(self) -> None:
        if self.connected and not self.closing:
            log.warning("the connection to NATS is lost; trying again until it is back", action="nats_disconnected")

    async def reconnected(self) -> None:
        log.info("connected to NATS again", action="nats_reconnected")

    async def closed(self) -> None:
        if self.connected and not self.closing:
            log.error("the connection to NATS is closed for good", action="nats_closed")


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, nats.errors.AuthorizationError) or "authorization" in str(error).lower()


def _unreachable(url: str, error: Exception) -> InternalError:
    servers = without_secrets(url)
    if _is_refusal(error):
        return InternalError(
            f"NATS at {servers} refuses these credentials",
            code="natsUnauthorized",
            hint="put user and password into the URL: nats://USER:PASSWORD@HOST:PORT",
        )
    why = "it does not answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return InternalError(
        f"NATS at {servers} cannot be reached: {why}",
        code="natsUnreachable",
        hint="check that the server runs and that --nats-url (RUNSTREAM_NATS_URL) is right; see runstream doctor",
    )
