"""A proxy in front of the tests' S3 server that returns errors, breaks off, or stalls, as a test asks."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request."""

    method: str
    target: str
    head: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """An error to return without asking the server."""

    status: int
    code: str

    def answer(self) -> bytes:
        body = f"<Error><Code>{self.code}</Code><Message>as the test wants</Message></Error>".encode()
        head = f"HTTP/1.1 {self.status} Refused\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + body


@dataclass(frozen=True, slots=True)
class Cut:
    """A break after this many bytes of the server's response."""

    behind: int


Fault = Refuse | Cut | None
Decide = Callable[[Request], Awaitable[Fault]]


async def _no_fault(_: Request) -> Fault:
    return None


@dataclass(slots=True)
class Proxy:
    """The running proxy; `decide` may be changed at any time."""

    url: str
    server: str
    decide: Decide = _no_fault
    requests: list[Request] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # who asked has gone
            request = await _request(reader)
            self.requests.append(request)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            try:
                fault = await self.decide(request)
                writer.write(await self._answer(request, fault))
                await writer.drain()
            finally:
                self.under_way -= 1
        writer.close()

    async def _answer(self, request: Request, fault: Fault) -> bytes:
        if isinstance(fault, Refuse):
            return fault.answer()
        server = urlsplit(self.server)
        reader, writer = await asyncio.open_connection(server.hostname, server.port)
        writer.write(request.head + b"Connection: close\r\n\r\n" + request.body)
        answer = await reader.read(-1)
        writer.close()
        return answer[: fault.behind] if fault is not None else answer


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n"))[:-2]
    lines = head.split(b"\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if headers.get(b"expect", b"").lower() == b"100-continue":
        raise ConnectionError("not known here")
    body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
    method, target, _ = lines[0].decode().split(" ")
    return Request(method, target, head, body)


@contextlib.asynccontextmanager
async def faulty(server: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A proxy in front of the server at this URL."""
    proxy = Proxy("", server)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        proxy.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield proxy
