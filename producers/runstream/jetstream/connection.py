"""The connection of a process to NATS: it reconnects for ever, and logs each change once.

The connection leaves a server that does not answer a ping for 3 seconds, and one whose streams do not answer while the
cluster has other servers (`failover`). The library's own pings queue behind unsent data, so that they alone would
notice a dead link only after many minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client, Server

from runstream.backoff import Backoff, retry
from runstream.errors import InternalError
from runstream.jetstream.api import header_lines, header_text, request
from runstream.jetstream.failover import LEAVE_SECONDS, Answers, majority_silence
from runstream.lifecycle import keep_running
from runstream.telemetry.logs import without_secrets

CONNECT_SECONDS = 6.0
_RECONNECT_WAIT_SECONDS = 0.2
_PENDING_BYTES = 32 << 20
_PING_SECONDS = 1.0
SILENCE_SECONDS = 3.0
"""Maximum wait for the answer to a ping, in seconds."""
_ASK_SECONDS = 3.0
"""Interval between questions for the leader of a stream that is only read, in seconds."""
_AVOID_SECONDS = 30.0
"""Time for which a server that was left is the last one to try, in seconds."""
log = structlog.get_logger()


@contextlib.asynccontextmanager
async def nats_connection(url: str, name: str = "runstream", seconds: float = CONNECT_SECONDS) -> AsyncIterator[Client]:
    """Hold a connection for the length of the block.

    `url` may name several servers, separated by commas. Raises InternalError when none can be reached within
    `seconds`, or a server refuses the credentials.
    """
    events = _ConnectionEvents()
    connecting = asyncio.create_task(_connect(url, name, events))
    asking = asyncio.create_task(_ask_why(url, name, events))
    refused = asyncio.create_task(events.refused.wait())
    try:
        # Connecting to an absent server is tried again; a server that refuses the credentials will refuse them again.
        async with asyncio.timeout(seconds):
            await asyncio.wait({connecting, refused}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise nats.errors.AuthorizationError
            client = await connecting
    except (TimeoutError, OSError, nats.errors.Error, ValueError) as error:
        raise _unreachable(url, events.last or error) from error
    finally:
        refused.cancel()
        asking.cancel()
        connecting.cancel()
    events.connected = True
    beside = [
        asyncio.create_task(keep_running("NATS ping", partial(_ping, client)), name="NATS ping"),
        asyncio.create_task(keep_running("NATS leaders", partial(_ask_for_leaders, client)), name="NATS leaders"),
    ]
    try:
        yield client
    finally:
        events.closing = True
        for task in beside:
            task.cancel()
        await client.close()


async def _ping(client: _Client) -> None:
    """Leave a server that does not answer, until cancelled."""
    while True:
        await asyncio.sleep(_PING_SECONDS)
        if not client.is_connected:
            continue
        reconnects = client.stats["reconnects"]
        # Not awaited directly: nats-py uses `wait_for`, which in Python 3.11 swallows a cancellation.
        asking = asyncio.ensure_future(client.rtt(round(SILENCE_SECONDS * 2)))
        try:
            await asyncio.wait({asking}, timeout=SILENCE_SECONDS)
            # A process that was suspended meanwhile reads the answer only now.
            await asyncio.sleep(0)
            if not asking.done() and client.stats["reconnects"] == reconnects:
                await client.leave(f"it did not answer a ping within {SILENCE_SECONDS:g} seconds")
        finally:
            asking.cancel()
            asking.add_done_callback(_forget)


async def _ask_for_leaders(client: _Client) -> None:
    """Leave a server whose leader of a stream that is only read has no majority, or does not answer."""
    while True:
        await asyncio.sleep(_ASK_SECONDS)
        if len(client.servers) == 1 or (stream := client.answers.to_ask()) is None:
            continue
        with contextlib.suppress(InternalError):
            found = await request(client, f"STREAM.INFO.{stream}", seconds=LEAVE_SECONDS + 1)
            silence = majority_silence(found.get("cluster") or {})
            if silence > LEAVE_SECONDS:
                await client.leave(f"the leader of {stream} has not heard of a majority for {silence:.1f} seconds")


def _forget(asked: asyncio.Future[float]) -> None:
    """Retrieve the error of an abandoned ping, so that asyncio does not log it."""
    if not asked.cancelled():
        asked.exception()


async def _connect(url: str, name: str, events: _ConnectionEvents) -> _Client:
    """Return a connected client; try for ever, and close each one that fails."""

    async def connect() -> _Client:
        client = _Client()
        try:
            await client.connect(
                servers=_servers(url),
                name=name,
                error_cb=events.error,
                disconnected_cb=events.disconnected,
                reconnected_cb=client.reconnected(events),
                closed_cb=events.closed,
                reconnect_to_server_handler=client.choose,
                connect_timeout=2,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_WAIT_SECONDS,  # type: ignore[arg-type] # it is slept: fractions work
                ping_interval=5,
                max_outstanding_pings=2,
                pending_size=_PENDING_BYTES,
                flusher_queue_size=8192,
            )
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                await client.close()
            raise
        return client

    def give_up(error: Exception, _delay: float) -> None:
        if _is_refusal(error):
            raise error

    return await retry(connect, (OSError, nats.errors.Error), Backoff(_RECONNECT_WAIT_SECONDS), give_up)


async def _ask_why(url: str, name: str, events: _ConnectionEvents) -> None:
    """Connect again in verbose mode whenever a server has cut the connection, to learn the reason, which `events`
    records.

    The client sends more data before it reads the answer to its credentials. A server that refuses them and closes with
    unread data resets the connection, which loses its answer. With `verbose` the client awaits the answer first.
    """
    while True:
        await events.cut.wait()
        events.cut.clear()
        client = Client()
        with contextlib.suppress(OSError, nats.errors.Error):  # `events` has recorded it
            await client.connect(
                servers=_servers(url),
                name=name,
                error_cb=events.error,
                connect_timeout=2,
                allow_reconnect=False,
                verbose=True,
            )
        await client.close()
        await asyncio.sleep(_RECONNECT_WAIT_SECONDS)


def _servers(url: str) -> list[str]:
    return [part.strip() for part in url.split(",")]


class _Client(Client):
    """A client that leaves silent servers, and reads and writes headers (four or more a commit) four times faster."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = Answers(self._leave_if_there_are_others)
        self._left: dict[str, float] = {}
        self._tries: Counter[str] = Counter()
        """Attempts at each server since the last connection. The library's own count is of all outages so far."""
        self._leaving: asyncio.Task[None] | None = None

    async def leave(self, why: str) -> None:
        """Connect to another server, or again to the only one."""
        if self.is_connected:
            server = self.connected_url.netloc.rpartition("@")[2] if self.connected_url else ""
            log.warning(f"leaving NATS at {server}: {why}", action="nats_left", server=server, why=why)
            self._left[server] = time.monotonic()
            await self.force_reconnect()

    def _leave_if_there_are_others(self, why: str) -> None:
        if len(self.servers) > 1:
            self._leaving = asyncio.get_running_loop().create_task(self.leave(why))

    def choose(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        """Choose the next server, and the delay before connecting; servers that were left come last."""
        now = time.monotonic()

        def tried(server: Server) -> tuple[int, float]:
            name = _name(server)
            left = self._left.get(name, 0.0)
            return self._tries[name] + (3 if left and now - left < _AVOID_SECONDS else 0), left

        chosen = min(servers, key=tried)
        name = _name(chosen)
        self._tries[name] += 1
        return chosen, _RECONNECT_WAIT_SECONDS if self._tries[name] > 1 else 0.0

    def reconnected(self, events: _ConnectionEvents) -> Callable[[], Awaitable[None]]:
        """Return the callback for each reconnection."""

        async def connected_again() -> None:
            self._tries.clear()
            self.answers.connected()
            await events.reconnected()

        return connected_again

    async def _attempt_reconnect(self) -> None:
        # Not public. The library first flushes what was written, which over a dead link takes many minutes.
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        await super()._attempt_reconnect()

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, str] | None
    ) -> None:
        # Not public, as below. The library looks at every character of every header.
        lines = header_text(headers) if headers else None
        if lines is None:
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(
            b"HPUB %b %d %d\r\n%b%b\r\n"
            % (f"{subject} {reply}".encode(), len(lines), len(lines) + payload_size, lines, payload)
        )
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        # Not public: a version of the library with another name for it ignores this, and nothing else changes.
        return header_lines(raw)


def _name(server: Server) -> str:
    return server.uri.netloc.rpartition("@")[2]


class _ConnectionEvents:
    """The client's events as log records; before the first connection, only the last error is kept."""

    def __init__(self) -> None:
        self.last: Exception | None = None
        self.refused = asyncio.Event()
        self.cut = asyncio.Event()
        self.connected = False
        self.closing = False

    async def error(self, error: Exception) -> None:
        if not self.refused.is_set():  # closing a refused connection may fail, too: keep the refusal
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
