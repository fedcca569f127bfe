"""Waiting for an event with a time limit that is a result, not an error."""

from __future__ import annotations

import asyncio


async def heard(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until the event is set, for at most `seconds` (None: without limit); return whether it is.

    Not `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that coincides with the event.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
