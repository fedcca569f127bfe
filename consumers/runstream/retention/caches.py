"""Retention of caches, by age and by the size of all: the oldest go first. The log has no events of them.

A cache that is restored often is no younger for it. Saving one is no event either, so all caches are listed again every
ten minutes; removals by age are on time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from runstream.api import Cache
from runstream.counting import counted
from runstream.errors import NotExistError
from runstream.objects.caches import StoredCaches

LIST_SECONDS = 600.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What is kept of the caches; None keeps everything."""

    age: timedelta | None = None
    size: int | None = None
    """Bytes of all caches."""

    def __bool__(self) -> bool:
        return self.age is not None or self.size is not None


def surplus(caches: Sequence[Cache], policy: CachePolicy, now: datetime) -> list[Cache]:
    """Return the caches to remove, the newest of them first."""
    gone, total = [], 0
    for cache in sorted(caches, key=lambda cache: cache.created, reverse=True):
        total += cache.size
        old = policy.age is not None and cache.created + policy.age <= now
        if old or (policy.size is not None and total > policy.size):
            gone.append(cache)
            total -= cache.size
    return gone


class CacheRetention:
    """The retention of all caches of an object storage."""

    def __init__(self, caches: StoredCaches, policy: CachePolicy, clock: Callable[[], datetime]) -> None:
        self._caches = caches
        self._policy = policy
        self._clock = clock

    async def run(self) -> None:
        """Remove what is not kept, until cancelled."""
        while self._policy:
            oldest = await self.remove()
            seconds = LIST_SECONDS
            if oldest is not None and self._policy.age is not None:
                left = (oldest + self._policy.age - self._clock()).total_seconds()
                seconds = min(max(left, 1.0), LIST_SECONDS)
            await asyncio.sleep(seconds)
        await asyncio.Event().wait()

    async def remove(self) -> datetime | None:
        """Remove what is not kept now; return when the oldest cache that is left was saved."""
        async with aclosing(self._caches.list()) as listed:
            caches = [cache async for cache in listed]
        gone = surplus(caches, self._policy, self._clock())
        for cache in gone:
            with suppress(NotExistError):  # a user was first
                await self._caches.delete(cache.group, cache.key)
        if gone:
            size = sum(cache.size for cache in gone)
            log.info(
                f"Retention removed {counted(len(gone), 'cache')}",
                action="caches_removed",
                caches=len(gone),
                bytes=size,
            )
        kept = {(cache.group, cache.key) for cache in caches} - {(cache.group, cache.key) for cache in gone}
        return min((cache.created for cache in caches if (cache.group, cache.key) in kept), default=None)
