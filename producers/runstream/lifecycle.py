"""The lifecycle of a component: start, serve, drain and stop, safe to call repeatedly.

A component's work is its `run`: it sets `started` when it serves, returns soon after `stopping` is set, and
is cancelled when it does not.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Component(ABC):
    """A long-lived part of a process."""

    name: str = "component"
    stop_seconds: float = 8.0
    """Maximum duration of an orderly stop, in seconds, before `run` is cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def run(self) -> None:
        """Serve until `stopping` is set."""

    async def drain(self, seconds: float | None) -> None:
        """Start no new work and wait for running work; end what still runs after `seconds`.

        Cancellation resumes normal operation. A component that stops quickly has nothing to drain.
        """
        return

    @property
    def under_way(self) -> int:
        """Amount of running work, which a drain waits for."""
        return 0

    def positions(self) -> Mapping[int, int]:
        """Return the sequence read last, by partition; empty for a component that reads no log."""
        return {}

    async def start(self) -> None:
        """Start, and wait until it serves. Raises what `run` raises before that."""
        if self._task is None:
            self._task = asyncio.create_task(self.run(), name=self.name)
        waiter = asyncio.create_task(self.started.wait())
        try:
            await asyncio.wait({self._task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        if self._task.done():
            self._task.result()

    async def wait(self) -> None:
        """Wait for the end of `run`. Raises the error that ended it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop in order; cancel `run` after `stop_seconds`. A second stop waits for the first."""
        self.stopping.set()
        if self._task is None:
            return
        _, pending = await asyncio.wait({self._task}, timeout=self.stop_seconds)
        if pending:
            self._task.cancel()
            await asyncio.wait({self._task})


async def wait_for_first(*waits: Coroutine[Any, Any, T]) -> T:
    """Wait until one of these coroutines ends, cancel the others, and return its result or raise its error."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()


async def wait_for_event(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until the event is set, for at most `seconds` (None: without limit); return False if it is not set by then.

    Unlike `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that coincides with the event.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
