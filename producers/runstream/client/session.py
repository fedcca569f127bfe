"""HTTP to one service: requests and their retries, responses read as streams, and every failure as a ClientError."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Generic, Self, TypeVar

import httpx2
import msgspec

from runstream.api import ErrorEntry, Readiness
from runstream.client.errors import ClientError, ConnectionFailedError

T = TypeVar("T")

POSITION_HEADER = "Runstream-Position"
CONFIG_POSITION_HEADER = "Runstream-Config-Position"
"""The position of a change of users, projects or secrets, which later requests include."""
CURSOR_HEADER = "X-Agola-Cursor"
"""Where the next page of a list begins; empty, or missing, after its last page."""
CONNECT_SECONDS = 5.0
READ_SECONDS = 45.0
"""More than the gateway's own limit for an append, so that its error arrives."""
SILENCE_SECONDS = 60.0
"""Silence after which an event stream is lost: the service sends something every 15 s."""
_PREFIX = "/api/v1alpha"
_KEEPALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
if hasattr(socket, "TCP_KEEPIDLE"):
    # A followed log may be silent for hours: a host that vanished is noticed within half a minute.
    _KEEPALIVE += [
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ]
ATTEMPTS = 3
"""Attempts to connect before a request fails."""
WAIT_SECONDS = 30.0
"""Seconds that a request waits for a service that answers 503, and an interrupted stream for its service."""
_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 2.0

Waiting = Callable[[str], None]


def _verify(url: str) -> bool | ssl.SSLContext:
    """Return what verifies certificates. Loading the trusted ones takes 20 ms, which http:// can spare: none then."""
    return True if url.lower().startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def silent(_: str) -> None:
    """Ignore the reason of a wait."""


class Retries:
    """The retries of one request; `seconds` bounds the time without progress.

    Only reads and writes with an idempotency key are retried: anything else could be carried out twice.
    """

    def __init__(self, seconds: float, waiting: Waiting = silent) -> None:
        self._seconds = seconds
        self._waiting = waiting
        self._failures = 0
        self._deadline: float | None = None

    def progressed(self) -> None:
        """Reset the count and the deadline: the service has answered."""
        self._failures = 0
        self._deadline = None

    async def wait(self, error: ClientError, *, begun: bool = False) -> None:
        """Wait until the request may be sent again; raise the error when a retry cannot help.

        `begun`: the response had started, so the service exists and is worth waiting for.
        """
        broken = isinstance(error, ConnectionFailedError)
        if not (broken or (error.status == 503 and (begun or "dependency" in error.details))):
            raise error
        loop = asyncio.get_running_loop()
        self._failures += 1
        if self._deadline is None:
            self._deadline = loop.time() + self._seconds
        left = self._deadline - loop.time()
        patient = left > 0 and (begun or not broken)
        if not patient and (not broken or self._failures >= ATTEMPTS):
            raise error
        if patient and (not broken or self._failures >= ATTEMPTS):
            self._waiting(error.message)
        pause = error.retry_after or min(_BACKOFF_SECONDS * self._failures, _MAX_BACKOFF_SECONDS)
        # Jitter keeps many clients from coming back at the same moment.
        await asyncio.sleep(min(pause, max(left, _BACKOFF_SECONDS)) * random.uniform(0.5, 1))  # noqa: S311


class Streams:
    """The open streams of one client, and abandoned ones that are being closed.

    `async for … in client.events.tail()` may be left by `break`, `return` or an exception. Python then finalizes the
    nested generators in an arbitrary order, concurrently, at the end of `asyncio.run`, and each of them complains that
    another one is closing it. So a loop holds a `Stream`, and only the client closes the generators behind it.
    """

    def __init__(self) -> None:
        self._open: weakref.WeakSet[Stream[Any]] = weakref.WeakSet()
        self._left: deque[AsyncGenerator[Any, None]] = deque()
        self._closing: set[asyncio.Task[None]] = set()

    def stream(self, items: AsyncGenerator[T, None]) -> Stream[T]:
        """Wrap a generator in a stream that this client closes."""
        stream = Stream(items, self)
        self._open.add(stream)
        return stream

    def leave(self, items: AsyncGenerator[Any, None], loop: asyncio.AbstractEventLoop) -> None:
        """Schedule the closing of an abandoned generator. Safe in any thread, since finalizers run in any."""
        self._left.append(items)
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._begin_closing)

    async def close(self) -> None:
        """Close all streams."""
        for stream in list(self._open):
            await stream.aclose()
        await self._close_left()
        if self._closing:
            await asyncio.wait(self._closing)

    def _begin_closing(self) -> None:
        if self._left:
            task = asyncio.get_running_loop().create_task(self._close_left())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close_left(self) -> None:
        while self._left:
            await self._left.popleft().aclose()


class Stream(Generic[T]):
    """An asynchronous iterator over items as they arrive. Closed by `async with`, `aclose`, or leaving its loop."""

    def __init__(self, items: AsyncGenerator[T, None], streams: Streams) -> None:
        self._items = items
        self._streams = streams
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        self._loop = self._loop or asyncio.get_running_loop()
        return await anext(self._items)

    async def aclose(self) -> None:
        """Close the connection and end the stream."""
        self._loop = None
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._loop is not None:  # started, and not closed
            self._streams.leave(self._items, self._loop)


class Session:
    """A connection pool to one service. It remembers the positions of its writes, so that reads can ask for them."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        detailed_errors: bool,
        transport: httpx2.AsyncBaseTransport | None,
        wait_seconds: float = WAIT_SECONDS,
        waiting: Waiting = silent,
    ) -> None:
        self._wait_seconds = wait_seconds
        self._waiting = waiting
        self.url = url.rstrip("/")
        headers = {"Authorization": f"token {token}"} if token else {}
        if detailed_errors:
            headers["Runstream-Detailed-Errors"] = "1"
        self._http = httpx2.AsyncClient(
            base_url=f"{self.url}{_PREFIX}",
            headers=headers,
            timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            transport=transport or httpx2.AsyncHTTPTransport(verify=_verify(self.url), socket_options=_KEEPALIVE),
        )
        self._written: dict[str, str] = {}
        self._config_written = ""
        self.streams = Streams()

    async def close(self) -> None:
        """Close all streams and connections."""
        await self.streams.close()
        await self._http.aclose()

    def retries(self) -> Retries:
        """Return fresh retries for one request."""
        return Retries(self._wait_seconds, self._waiting)

    async def read(self, path: str, kind: type[T], params: Mapping[str, Any] | None = None) -> T:
        """Send a GET; retry it when the connection fails or a dependency of the service is unavailable."""
        answer = await self._read(path, params)
        return decoded(answer.content, answer, kind)

    async def read_page(self, path: str, kind: type[T], params: Mapping[str, Any]) -> tuple[T, str]:
        """Read a page of a list; return it with the cursor of the next one, empty after the last."""
        answer = await self._read(path, params)
        return decoded(answer.content, answer, kind), answer.headers.get(CURSOR_HEADER, "")

    async def _read(self, path: str, params: Mapping[str, Any] | None) -> httpx2.Response:
        retries = self.retries()
        while True:
            try:
                return await self._request("GET", path, params=params, headers=self.own_writes())
            except ClientError as error:
                if error.code == "invalidPosition" and self.own_writes():
                    self._written.clear()  # the service went back to an epoch that lacks our writes
                    self._config_written = ""
                else:
                    await retries.wait(error)

    async def readiness(self) -> Readiness:
        """Send GET /readyz; its 503 is an answer, not an error."""
        try:
            answer = await self._http.get(f"{self.url}/readyz")
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise self._failed(error) from error
        return decoded(answer.content, answer, Readiness)

    async def write(
        self, method: str, path: str, body: object | None, kind: type[T], *, idempotency_key: str = ""
    ) -> T:
        """Send a request that changes something: once, or with an idempotency key with the retries of a read."""
        content = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        retries = self.retries()
        while True:
            try:
                answer = await self._request(method, path, content=content, headers=headers)
                break
            except ClientError as error:
                if not idempotency_key:
                    raise
                await retries.wait(error)
        self._remember(answer.headers.get(POSITION_HEADER, ""))
        self._config_written = answer.headers.get(CONFIG_POSITION_HEADER, "") or self._config_written
        return decoded(answer.content, answer, kind)

    async def upload(self, path: str, content: AsyncIterator[bytes], params: Mapping[str, str], kind: type[T]) -> T:
        """POST a body of any size, once, and wait for the response without a time limit."""
        timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        answer = await self._request("POST", path, params=params, content=content, timeout=timeout)
        return decoded(answer.content, answer, kind)

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        params: Mapping[str, Any],
        headers: Mapping[str, str],
        *,
        silence: float | None,
        content: AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        """Send a GET (with `content` a POST) and yield the response before its body; `silence` bounds pauses, in s."""
        writing = READ_SECONDS if content is None else None
        timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, read=silence, write=writing)
        method = "GET" if content is None else "POST"
        try:
            async with self._http.stream(
                method, path, params=params, headers=headers, timeout=timeout, content=content
            ) as answer:
                if answer.is_error:
                    raise refusal(await answer.aread(), answer)
                yield answer
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise self._failed(error) from error

    def own_writes(self) -> dict[str, str]:
        """Return the header that asks for a state which includes this client's writes."""
        wanted = {POSITION_HEADER: ",".join(self._written.values()), CONFIG_POSITION_HEADER: self._config_written}
        return {header: position for header, position in wanted.items() if position}

    def _remember(self, position: str) -> None:
        for one in filter(None, position.split(",")):
            self._written[one.rpartition("/")[0]] = one

    async def _request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            answer = await self._http.request(method, path, **options)
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise self._failed(error) from error
        if answer.is_error:
            raise refusal(answer.content, answer)
        return answer

    def _failed(self, error: Exception) -> ConnectionFailedError:
        match error:
            case httpx2.ConnectError() | httpx2.ConnectTimeout():
                return ConnectionFailedError(
                    f"cannot reach the service at {self.url}",
                    hint="is it running? `runstream serve` starts one on this machine",
                    code="serviceUnreachable",
                )
            case httpx2.TimeoutException():
                return ConnectionFailedError(
                    f"the service at {self.url} did not answer in time", hint="`runstream doctor` says what is wrong"
                )
            case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
                return ConnectionFailedError(
                    f"{self.url!r} is not the URL of a service", hint="it is like http://127.0.0.1:8000"
                )
        return ConnectionFailedError(
            f"the connection to {self.url} broke off", hint="was the service stopped? try again"
        )


async def lines_of(answer: httpx2.Response) -> AsyncGenerator[str, None]:
    """Yield each line of a response once it is complete, and at the end a last one without a line end."""
    begun: list[bytes] = []
    async with aclosing(answer.aiter_bytes()) as chunks:
        async for chunk in chunks:
            first, *others = chunk.split(b"\n")
            begun.append(first)
            for other in others:
                yield b"".join(begun).decode(errors="replace").removesuffix("\r")
                begun = [other]
    if last := b"".join(begun):
        yield last.decode(errors="replace")


def decoded(content: bytes, answer: httpx2.Response, kind: type[T]) -> T:
    """Decode a response, or a part of it. Raises ClientError."""
    if kind is type(None):
        return None
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise ClientError(
            f"the answer of {answer.url} cannot be understood: {error}",
            kind="remote",
            code="unexpectedAnswer",
            hint="is it a Runstream service, of a version that fits this client?",
            status=answer.status_code,
        ) from error


def refusal(content: bytes, answer: httpx2.Response) -> ClientError:
    """Return the error that a response carries."""
    try:
        entries = msgspec.json.decode(content, type=list[ErrorEntry])
    except (ValueError, RecursionError):
        entries = []  # a proxy's response: all there is, is its status
    if not entries:
        return ClientError(
            f"{answer.url.copy_with(query=None)} answered with status {answer.status_code} and no reason",
            kind="remote",
            code="unexpectedAnswer",
            hint="is it a Runstream service?",
            status=answer.status_code,
        )
    return _error_of(entries[0], answer.status_code, _seconds(answer.headers.get("Retry-After", "")))


def stream_error(data: str) -> ClientError:
    """Return the error with which an event stream ends."""
    entry = msgspec.json.decode(data, type=list[ErrorEntry])[0]
    unavailable = isinstance(entry.details, dict) and "dependency" in entry.details
    return _error_of(entry, 503 if unavailable else 0)


def _error_of(entry: ErrorEntry, status: int, retry_after: float = 0.0) -> ClientError:
    return ClientError(
        entry.message or (f"the service answered with status {status}" if status else "the event stream failed"),
        kind=entry.kind,
        code=entry.code,
        hint=entry.hint,
        details=entry.details if isinstance(entry.details, dict) else {},
        chain=entry.chain,
        status=status,
        retry_after=retry_after,
    )


def _seconds(text: str) -> float:
    """Parse a Retry-After in seconds; return 0 for a date or an empty one."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
