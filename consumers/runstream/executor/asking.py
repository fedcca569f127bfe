"""What a task needs from the log is waited for: a restart of NATS fails no task.

If the log stays away, the executor's lease ends, and that ends the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from runstream.errors import InternalError

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
_FIRST_DELAY_SECONDS = 0.1
_MAX_DELAY_SECONDS = 2.0

log = structlog.get_logger()


async def asked(ask: Callable[[], Awaitable[T]], seconds: float = PATIENCE_SECONDS) -> T:
    """What the log answers; while it cannot be reached it is asked again. Raises InternalError after that long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    delay = _FIRST_DELAY_SECONDS
    while True:
        try:
            return await ask()
        except InternalError as error:
            if error.code != "logUnreachable" or loop.time() + delay > deadline:
                raise
            log.warning("a task waits for the log", action="task_waits_for_log", error=str(error))
        await asyncio.sleep(delay)
        delay = min(delay * 2, _MAX_DELAY_SECONDS)
