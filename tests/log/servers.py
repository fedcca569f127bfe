"""Connections, and servers of a test's own that it may kill."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
from nats.aio.client import Client

from runstream.embedded import NatsServer


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """A connection that comes back whenever the server does."""

    async def quiet(_: Exception) -> None:
        """Who uses the connection says what is wrong."""

    nc = await nats.connect(url, error_cb=quiet, max_reconnect_attempts=-1, reconnect_time_wait=0.05)
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
