"""When a request is sent again: the connection failed, or the service waits for NATS, Postgres or its objects.

A request that might be carried out twice is never given to this: only reads, and writes with an idempotency key.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from runstream.client.errors import ClientError, ConnectionFailedError

ATTEMPTS = 3
"""How often a connection is tried that fails at once."""
WAIT_SECONDS = 30.0
"""How long a request waits for a service that answers 503, and a stream that broke off for its service."""
_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 2.0

Waiting = Callable[[str], None]


def silent(_: str) -> None:
    """Say nothing about waiting."""


class Retries:
    """The retries of one request; `seconds` bounds how long it goes without progress."""

    def __init__(self, seconds: float, waiting: Waiting = silent) -> None:
        self._seconds = seconds
        self._waiting = waiting
        self._failures = 0
        self._deadline: float | None = None

    def progressed(self) -> None:
        """Begin to count anew: the service has answered."""
        self._failures = 0
        self._deadline = None

    async def wait(self, error: ClientError, *, begun: bool = False) -> None:
        """Return when the request may be sent again; raises the error when that is of no use.

        `begun`: the response had begun, so that its service was there and is waited for.
        """
        broken = isinstance(error, ConnectionFailedError)
        if not (broken or away(error) or (begun and error.status == 503)):
            raise error
        loop = asyncio.get_running_loop()
        self._failures += 1
        if self._deadline is None:
            self._deadline = loop.time() + self._seconds
        left = self._deadline - loop.time()
        patient = left > 0 and (begun or not broken)
        if not patient and (not broken or self._failures >= ATTEMPTS):
            raise error
        if patient and (not broken or self._failures >= ATTEMPTS):
            self._waiting(error.message)
        pause = error.retry_after or min(_BACKOFF_SECONDS * self._failures, _MAX_BACKOFF_SECONDS)
        # The jitter keeps many clients from coming back in the same moment.
        await asyncio.sleep(min(pause, max(left, _BACKOFF_SECONDS)) * random.uniform(0.5, 1))  # noqa: S311


def away(error: ClientError) -> bool:
    """Return whether the service answered that something it depends on is away."""
    return error.status == 503 and "dependency" in error.details
