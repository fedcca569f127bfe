"""Connections, and servers of a test's own that it may kill."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client

from runstream.embedded import NatsServer


class Connection(Client):
    """A connection that reports when it is connected again."""

    def __init__(self) -> None:
        super().__init__()
        self.came_back = asyncio.Event()

    async def on_reconnected(self) -> None:
        self.came_back.set()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection that comes back whenever the server does."""

    async def quiet(_: Exception) -> None:
        """Who uses the connection says what is wrong."""

    nc = Connection()
    await nc.connect(
        url,
        error_cb=quiet,
        reconnected_cb=nc.on_reconnected,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.05,  # type: ignore[arg-type]
    )
    try:
        yield nc
    finally:
        await nc.close()


@asynccontextmanager
async def own_server(folder: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def killed_and_started(server: NatsServer) -> None:
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    await server.process.ended.wait()
    await server.start()
