"""One connection pool to one service: requests, answers, and every failure as a ClientError."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import httpx2
import msgspec

from runstream.client.errors import ClientError, ConnectionFailedError
from runstream.client.retrying import WAIT_SECONDS, Retries, Waiting, silent
from runstream.client.streams import Streams
from runstream.client.types import Readiness

T = TypeVar("T")

POSITION_HEADER = "Runstream-Position"
CONNECT_SECONDS = 5.0
READ_SECONDS = 45.0
"""More than a gateway tries to append, so that it can say what was wrong."""
SILENCE_SECONDS = 60.0
"""An event stream says something every 15 s; one that says nothing for so long is lost."""
_PREFIX = "/api/v1alpha"
_KEEPALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
if hasattr(socket, "TCP_KEEPIDLE"):
    # A followed log may be silent for hours: a host that vanished is noticed within half a minute.
    _KEEPALIVE += [
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ]


class _Entry(msgspec.Struct):
    """One entry of an error's body."""

    code: str = ""
    message: str = ""
    hint: str = ""
    kind: str = ""
    details: Any = None
    chain: list[str] = []


class Wire:
    """Sends requests and remembers the positions of what was written, so that reads can ask for them."""

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
            transport=transport or httpx2.AsyncHTTPTransport(socket_options=_KEEPALIVE),
        )
        self._written: dict[str, str] = {}
        self.streams = Streams()

    async def close(self) -> None:
        """Close all streams and connections."""
        await self.streams.close()
        await self._http.aclose()

    def retries(self) -> Retries:
        """The retries of one request."""
        return Retries(self._wait_seconds, self._waiting)

    async def read(self, path: str, kind: type[T], params: Mapping[str, Any] | None = None) -> T:
        """GET, tried again when the connection fails or the service waits for something."""
        retries = self.retries()
        while True:
            try:
                answer = await self._request("GET", path, params=params, headers=self.own_writes())
                return decoded(answer.content, answer, kind)
            except ClientError as error:
                if error.code == "invalidPosition" and self._written:
                    self._written.clear()  # Meanwhile the service went back to a log that does not know what we wrote.
                else:
                    await retries.wait(error)

    async def readiness(self) -> Readiness:
        """GET /readyz, whose 503 is an answer and not an error."""
        try:
            answer = await self._http.get(f"{self.url}/readyz")
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise self._failed(error) from error
        return decoded(answer.content, answer, Readiness)

    async def write(
        self, method: str, path: str, body: object | None, kind: type[T], *, idempotency_key: str = ""
    ) -> T:
        """A request that changes something: sent once; with a key, tried again as a read is."""
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
        return decoded(answer.content, answer, kind)

    async def upload(self, path: str, content: AsyncIterator[bytes], params: Mapping[str, str], kind: type[T]) -> T:
        """POST a body of any size, sent once; its answer is waited for as long as it takes."""
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
        """GET (POST with a content) whose answer is read while it comes; `silence` (seconds) is how long it may be."""
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
        """The header that asks for a state that includes what this client wrote."""
        return {POSITION_HEADER: ",".join(self._written.values())} if self._written else {}

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
    """Yield each line of an answer when it is complete, and at the end what is left without a line end."""
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
    """What an answer says, or a part of it. Raises ClientError."""
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
    """The error that the service told."""
    try:
        entries = msgspec.json.decode(content, type=list[_Entry])
    except (ValueError, RecursionError):
        entries = []  # as of a proxy: the status says what there is to say
    if not entries:
        return ClientError(
            f"{answer.url.copy_with(query=None)} answered with status {answer.status_code} and no reason",
            kind="remote",
            code="unexpectedAnswer",
            hint="is it a Runstream service?",
            status=answer.status_code,
        )
    first = entries[0]
    return ClientError(
        first.message or f"the service answered with status {answer.status_code}",
        kind=first.kind,
        code=first.code,
        hint=first.hint,
        details=first.details if isinstance(first.details, dict) else {},
        chain=first.chain,
        status=answer.status_code,
        retry_after=_seconds(answer.headers.get("Retry-After", "")),
    )


def _seconds(text: str) -> float:
    """The seconds of a Retry-After; 0 for a date or nothing."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
