"""How a process is connected to NATS: it reconnects for ever, and what happens is one log record each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import nats.errors
import structlog
from nats.aio.client import Client

from runstream.errors import InternalError
from runstream.jetstream.api import header_lines
from runstream.telemetry.secrets import without_secrets

CONNECT_SECONDS = 6.0
_RECONNECT_WAIT_SECONDS = 0.2
_PENDING_BYTES = 32 << 20
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
    try:
        yield client
    finally:
        said.closing = True
        await client.close()


async def _connect(url: str, name: str, said: _Said) -> Client:
    """A client that is connected; tries for ever. What failed is closed again."""
    while True:
        client = _Client()
        try:
            await client.connect(
                servers=_servers(url),
                name=name,
                error_cb=said.error,
                disconnected_cb=said.disconnected,
                reconnected_cb=said.reconnected,
                closed_cb=said.closed,
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
    """Reads headers in a quarter of the time: every commit has four or more."""

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
