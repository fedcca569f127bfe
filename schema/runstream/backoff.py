"""Trying again: a schedule of delays, and a call that is repeated on it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


@dataclass(frozen=True, slots=True)
class Backoff:
    """A schedule of delays between attempts."""

    first: float
    """The first delay, in seconds; each later one is twice as long."""
    longest: float = 0.0
    """The longest delay, in seconds; all delays are `first` if it is shorter."""
    attempts: int | None = None
    """The number of attempts in all; None for no limit."""
    jitter: bool = False
    """True to shorten each delay by a random part, up to half, which spreads callers that collided."""

    def delays(self) -> Iterator[float]:
        """Yield the delay after each attempt but the last, in seconds."""
        delay, left = self.first, self.attempts
        while left is None or left > 1:
            yield delay * random.uniform(0.5, 1.0) if self.jitter else delay  # noqa: S311  # no secret
            delay = max(self.first, min(delay * 2, self.longest))
            left = None if left is None else left - 1


def _ignore(_error: Exception, _delay: float) -> None: ...


async def retry(
    call: Callable[[], Awaitable[T]],
    errors: type[E] | tuple[type[E], ...],
    backoff: Backoff,
    on_error: Callable[[E, float], object] = _ignore,
) -> T:
    """Return the result of `call`; while it raises one of `errors`, call again after the next delay.

    `on_error` gets each error and the delay that follows, in seconds; it raises to give up. The error of the last
    attempt is raised.
    """
    for delay in backoff.delays():
        try:
            return await call()
        except errors as error:
            on_error(error, delay)
        await asyncio.sleep(delay)
    return await call()
