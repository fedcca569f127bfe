"""Waiting for an event, bounded: that the time is over is an answer here, not an error."""

from __future__ import annotations

import asyncio


async def heard(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until the event is set, so long at most; None for ever. Whether it is.

    Not `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that comes together with the event.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
