"""The one place where a transaction is done again, and where an error of Postgres becomes one of ours."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from runstream.database.failures import POSTGRES_ERRORS, RETRYABLE, failure, sqlstate
from runstream.errors import InternalError

T = TypeVar("T")

ATTEMPTS = 6
FIRST_BACKOFF = 0.01
"""Seconds; doubled for each further attempt, of which a random part is waited."""


class ContendedError(InternalError):
    """Concurrent transactions kept each other from finishing: a serialization failure or a deadlock."""

    def __init__(self) -> None:
        super().__init__(
            "concurrent transactions kept each other from finishing", code="databaseContended", hint="try again"
        )


async def retried(attempt: Callable[[], Awaitable[T]]) -> T:
    """What the attempt returns; it is made again while others keep it from finishing, a bounded number of times."""
    for number in range(1, ATTEMPTS):
        try:
            return await attempt()
        except ContendedError:
            await asyncio.sleep(random.uniform(0, FIRST_BACKOFF * 2**number))  # noqa: S311  # jitter, not a secret
    return await attempt()


@asynccontextmanager
async def bounded(deadline: float) -> AsyncIterator[None]:
    """Give up at the deadline (on the event loop's clock), and raise errors of Postgres as errors of ours."""
    bound = asyncio.timeout_at(deadline)
    try:
        async with bound:
            yield
    except POSTGRES_ERRORS as error:
        if sqlstate(error) in RETRYABLE:
            raise ContendedError from error
        raise failure(error) or error from error
    except TimeoutError as error:
        if bound.expired():
            raise failure(error) or error from error
        raise
