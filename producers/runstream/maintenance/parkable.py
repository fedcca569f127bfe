"""A component that works outside maintenance: made anew each time, drained and stopped when maintenance is asked for.

    parked -> made and started -> running -> draining -> stopped -> parked
                                     ^           |
                                     +-----------+   maintenance ended before it was drained

That it is made anew is what lets it begin in another epoch: it knows nothing of the time before.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime

import structlog

from runstream.jetstream.api import UnavailableError
from runstream.lifecycle import Component
from runstream.maintenance.mode import Mode, Part
from runstream.maintenance.records import Doing
from runstream.maintenance.requested import Requested

_RETRY_SECONDS = 0.5
log = structlog.get_logger()
Make = Callable[[], Awaitable[Component]]


class Parkable(Component):
    """Runs what `make` makes, whenever the mode is open."""

    def __init__(self, name: str, mode: Mode, make: Make) -> None:
        super().__init__()
        self.name = name
        self._mode = mode
        self._make = make
        self._part: Part = mode.join(name)

    async def run(self) -> None:
        """Work and park until `stopping` is set. Raises what the component raises."""
        while await self._may_work():
            try:
                if await self._served():
                    return
            finally:
                self._part.become(self._unless_stopping(Doing.PARKED))

    async def _may_work(self) -> bool:
        """Wait for the mode to be open; False when the process stops instead."""
        mode = self._mode
        while not self.stopping.is_set():
            if mode.open:
                # Said before anything is awaited: nobody may take this process for parked from here on.
                self._part.become(Doing.STARTING)
                return True
            if mode.request is not None:
                self.started.set()
            await self._first(mode.until(lambda: mode.open or (mode.request is not None and not self.started.is_set())))
        return False

    async def _served(self) -> bool:
        """Make a component and let it work for as long as it is to; True when it has ended by itself."""
        component = await self._made()
        if component is None:
            return False
        self._part.follow(component)
        try:
            return await self._begun(component) and await self._worked(component)
        finally:
            self._part.become(self._unless_stopping(Doing.DRAINING))
            await self._ended(component)

    def _unless_stopping(self, doing: Doing) -> Doing:
        return Doing.STOPPING if self.stopping.is_set() else doing

    async def _made(self) -> Component | None:
        """A new one; None when what it needs cannot be reached now. Raises that when the process has just started."""
        try:
            return await self._make()
        except UnavailableError as error:
            if not self.started.is_set():
                raise
            log.warning(f"The {self.name} goes on later", action="component_waits", why=error.message)
        await self._first(asyncio.sleep(_RETRY_SECONDS))
        return None

    async def _ended(self, component: Component) -> None:
        """Stop it, at once when the process cannot wait any longer."""
        component.stop_seconds = min(component.stop_seconds, self.stop_seconds)
        try:
            await component.stop()
        except asyncio.CancelledError:
            component.stop_seconds = 0.0
            await component.stop()
            raise

    async def _begun(self, component: Component) -> bool:
        """Start it; False when it is not to work any more before it has."""
        starting = asyncio.ensure_future(component.start())
        try:
            await self._first(_done(starting), self._closed())
            if not starting.done():
                return False
            starting.result()
        finally:
            starting.cancel()
        self._part.become(Doing.RUNNING)
        self.started.set()
        return True

    async def _worked(self, component: Component) -> bool:
        """Let it work until it is drained, or the process stops; True when it has ended by itself."""
        ended = asyncio.ensure_future(component.wait())
        try:
            while True:
                await self._first(_done(ended), self._closed())
                if ended.done():
                    ended.result()
                    return True
                request = self._mode.request
                if self.stopping.is_set() or (request is not None and await self._drained(component, request, ended)):
                    return False
                if self._mode.open:
                    self._part.become(Doing.RUNNING)
        finally:
            ended.cancel()

    async def _drained(self, component: Component, request: Requested, ended: asyncio.Future[None]) -> bool:
        """Drain it; False when something else is asked for, or it ended, before it is drained."""
        self._part.become(Doing.DRAINING)
        draining = asyncio.ensure_future(component.drain(_seconds_left(request)))

        def other() -> bool:
            return self._mode.request is None or self._mode.request.id != request.id

        try:
            await self._first(_done(draining), _done(ended), self._mode.until(other))
            if draining.done():
                draining.result()
                return True
            draining.cancel()
            await asyncio.wait({draining})
            return False
        finally:
            draining.cancel()

    async def _closed(self) -> None:
        await self._mode.until(lambda: not self._mode.open)

    async def _first(self, *waits: Coroutine[None, None, None]) -> None:
        """Return when one of these does, or the process is to stop."""
        async with _tasks(*waits, self._stopped()) as tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _stopped(self) -> None:
        await self.stopping.wait()


@contextlib.asynccontextmanager
async def _tasks(*waits: Coroutine[None, None, None]) -> AsyncIterator[set[asyncio.Task[None]]]:
    tasks = {asyncio.create_task(wait) for wait in waits}
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()


async def _done(future: asyncio.Future[None]) -> None:
    await asyncio.wait({future})


def _seconds_left(request: Requested) -> float | None:
    if request.deadline is None:
        return None
    return max((request.deadline - datetime.now(UTC)).total_seconds(), 0.0)
