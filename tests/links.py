"""A TCP link to a server that a test cuts and mends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

_READ_BYTES = 64 << 10


class Link:
    """Passes bytes on in both directions. While it is cut, connections stay open and nothing arrives."""

    def __init__(self, url: str) -> None:
        """`url` is the server's, with host and port."""
        self._target = urlsplit(url)
        self._whole = asyncio.Event()
        self._whole.set()
        self._passing: set[asyncio.Task[None]] = set()
        self.url = ""
        """The same URL through this link; once it is open."""

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        login = self._target.netloc.rpartition("@")
        self.url = urlunsplit(self._target._replace(netloc=f"{login[0]}{login[1]}127.0.0.1:{port}"))
        return server

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def close(self) -> None:
        for task in self._passing:
            task.cancel()
        if self._passing:
            await asyncio.wait(self._passing)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._target.hostname, self._target.port)
        for source, sink in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._pass(source, sink))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            try:
                while chunk := await source.read(_READ_BYTES):
                    await self._whole.wait()
                    sink.write(chunk)
                    await sink.drain()
                await self._whole.wait()
            finally:
                sink.close()


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
