"""A TCP link to a server that a test cuts, breaks off and mends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

_READ_BYTES = 64 << 10
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""


class Link:
    """Passes bytes on in both directions, on loopback; made by `link`."""

    def __init__(self, url: str) -> None:
        """`url` is the server's, with host and port."""
        self._target = urlsplit(url)
        self._whole = asyncio.Event()
        self._whole.set()
        self._refusing = False
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.answers_to_lose = 0
        """How many of the next pieces that the server sends are thrown away."""
        self.url = ""
        """The same URL through this link; once it is open."""

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        login = self._target.netloc.rpartition("@")
        self.url = urlunsplit(self._target._replace(netloc=f"{login[0]}{login[1]}127.0.0.1:{port}"))
        return server

    def cut(self) -> None:
        """Let nothing arrive any more; connections stay open, as when a cable is pulled."""
        self._whole.clear()

    def break_off(self) -> None:
        """Reset every connection, and each new one at once."""
        self._refusing = True
        for writer in list(self._writers):
            _reset(writer)

    def mend(self) -> None:
        """Pass everything on again; what was held up arrives now."""
        self._refusing = False
        self._whole.set()

    async def close(self) -> None:
        self.break_off()
        self._whole.set()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._writers.add(writer)
        try:
            await self._whole.wait()
            if not self._refusing:
                with contextlib.suppress(OSError):
                    await self._joined(reader, writer)
        finally:
            self._connections.discard(task)
            self._writers.discard(writer)
            _reset(writer)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, there = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers.add(there)
        ways = [
            asyncio.create_task(self._pass(reader, there)),
            asyncio.create_task(self._pass(answers, writer, answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            self._writers.discard(there)
            _reset(there)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool = False) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(_READ_BYTES):
                await self._whole.wait()
                if answers and self.answers_to_lose:
                    self.answers_to_lose -= 1
                    continue
                sink.write(chunk)
                await sink.drain()
            await self._whole.wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        raw: socket.socket | None = writer.get_extra_info("socket")
        if raw is not None and not writer.is_closing():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@asynccontextmanager
async def link(url: str) -> AsyncIterator[Link]:
    """A link to the server at this URL, whole at first."""
    made = Link(url)
    server = await made.open()
    try:
        yield made
    finally:
        server.close()
        await made.close()
