"""A resource prepared ahead of the task that will use it: at most one, made while no task waits for it.

The driver of host tasks keeps a sandbox like this, because making one is most of a short task's start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from runstream.errors import RunstreamError

log = structlog.get_logger()

T = TypeVar("T")


class Spare(Generic[T]):
    """At most one prepared resource. `close` it at the end."""

    def __init__(
        self, prepare: Callable[[], Awaitable[T]], discard: Callable[[T], Awaitable[None]], keep_seconds: float
    ) -> None:
        """`prepare` cleans up after itself when it fails or is cancelled; a resource that no task takes for
        `keep_seconds` is discarded."""
        self._prepare = prepare
        self._discard = discard
        self._keep_seconds = keep_seconds
        self._preparing: asyncio.Task[None] | None = None
        self.claimed = False
        """True while a caller of `take` waits for the resource that is being prepared."""
        self.ready: T | None = None
        """The resource that `take` returns next; None for none."""
        self._expiry: asyncio.TimerHandle | None = None
        self._works: set[asyncio.Task[None]] = set()

    def expect(self, expected: bool) -> None:
        """Prepare a resource if one is expected to be taken and none is there; otherwise discard what is there."""
        if not expected:
            if self._preparing is not None:
                self._preparing.cancel()
                self._preparing = None
            self._drop()
        elif self.ready is None and self._preparing is None:
            self._preparing = self._work(self._fill())

    async def take(self) -> T | None:
        """Return the resource, which the caller owns from now on; None if there is none.

        Wait for one that is being prepared, unless another caller waits for it already.
        """
        if (preparing := self._preparing) is not None and not self.claimed:
            self.claimed = True
            try:
                await asyncio.wait({preparing})
            finally:
                self.claimed = False
        return self._taken()

    def discard(self, resource: T) -> None:
        """Discard a resource in the background."""
        self.later(self._discard(resource))

    def later(self, work: Awaitable[None]) -> None:
        """Do work in the background, for which `close` waits; an error is logged."""
        self._work(self._logged(work))

    async def close(self) -> None:
        """Discard the resource, and wait until everything is discarded."""
        self.expect(False)
        await self.settled()

    async def settled(self) -> None:
        """Wait until nothing is being prepared or discarded."""
        while self._works:
            await asyncio.wait(self._works)

    async def _fill(self) -> None:
        try:
            made = await self._prepare()
        except (RunstreamError, OSError) as error:  # the next task makes one itself, or reports why it cannot
            log.info(f"nothing was prepared for the next task: {error}", action="spare_not_made")
        except Exception:  # as above: a spare never fails the executor
            log.exception("nothing was prepared for the next task", action="spare_not_made")
        else:
            self.ready = made
            self._expiry = asyncio.get_running_loop().call_later(self._keep_seconds, self._drop)
        self._preparing = None

    def _taken(self) -> T | None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        ready, self.ready = self.ready, None
        return ready

    def _drop(self) -> None:
        if (ready := self._taken()) is not None:
            self.discard(ready)

    async def _logged(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:
            log.exception("what was prepared for a task cannot be discarded", action="spare_left")

    def _work(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        return task
