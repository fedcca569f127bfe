"""A minimal HTTP client, because it shares the cores with the system under test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection that is kept open; a request at a time."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    host: str
    token: str

    async def create_run(self, body: bytes) -> bytes:
        """POST /runs; the body of the answer. Raises RuntimeError for anything but 201."""
        return await self.post("/runs", body)

    async def post(self, path: str, body: bytes) -> bytes:
        """Create something; the body of the answer. Raises RuntimeError for anything but 201."""
        return await self.request("POST", path, body, 201)

    async def request(self, method: str, path: str, body: bytes, expected: int) -> bytes:
        """Send a request; return the body of the answer. Raises RuntimeError for another status than expected."""
        head = (
            f"{method} /api/v1alpha{path} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: token {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        async with asyncio.timeout(_ANSWER_SECONDS):
            head_bytes = await self.reader.readuntil(b"\r\n\r\n")
            status, _, fields = head_bytes.partition(b"\r\n")
            length = next(line for line in fields.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            answer = await self.reader.readexactly(int(length.partition(b":")[2]))
        if f" {expected} ".encode() not in status:
            raise RuntimeError(f"{status.decode()}: {answer.decode()}")
        return answer


@contextlib.asynccontextmanager
async def connections(url: str, token: str, count: int) -> AsyncIterator[list[Connection]]:
    """That many connections to a gateway."""
    place = urlsplit(url)
    opened = [await asyncio.open_connection(place.hostname, place.port) for _ in range(count)]
    try:
        yield [Connection(reader, writer, place.netloc, token) for reader, writer in opened]
    finally:
        for _, writer in opened:
            writer.close()
