"""A command's work with a client, from the command line's side: its loop, its errors, its exit code."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
from collections.abc import Awaitable, Callable

from runstream.cli.connection import connect
from runstream.cli.failures import told_by_service
from runstream.client import Client

Work = Callable[[Client], Awaitable[int | None]]


def with_client(work: Work, *, reads_on: bool = False) -> int:
    """Do the work with a client of the service; return its exit code, 0 for none. Raises RunstreamError.

    `reads_on`: it only prints what happens, so it ends as soon as the reader of its output has left.
    """

    async def run() -> int:
        async with connect() as client:
            return await (_while_read(work, client) if reads_on else work(client)) or 0

    with told_by_service():
        return asyncio.run(run())


async def _while_read(work: Work, client: Client) -> int | None:
    """Do the work; raise BrokenPipeError once stdout is a pipe without a reader, also while nothing is written."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work(client))
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        loop.remove_reader(output)
        task.cancel()

    try:
        output = sys.stdout.fileno()
        watched = stat.S_ISFIFO(os.fstat(output).st_mode)
        if watched:
            loop.add_reader(output, leave)  # the end of a pipe that is written to is readable only when it is broken
    except (OSError, ValueError):  # stdout is none of the system, or one that cannot be watched
        watched = False
    try:
        return await task
    except asyncio.CancelledError:
        if left:
            raise BrokenPipeError(errno.EPIPE, "the reader of the output left") from None
        raise
    finally:
        task.cancel()
        if watched:
            loop.remove_reader(output)
