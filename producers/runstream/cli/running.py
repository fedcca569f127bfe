"""A command's work with a client, from the command line's side: its loop, its errors, its exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from runstream.cli.connection import connect
from runstream.cli.failures import told_by_service
from runstream.client import Client


def with_client(work: Callable[[Client], Awaitable[int | None]]) -> int:
    """Do the work with a client of the service; its exit code, 0 for none. Raises RunstreamError."""

    async def run() -> int:
        async with connect() as client:
            return await work(client) or 0

    with told_by_service():
        return asyncio.run(run())
