"""The lifecycle of a component: start, serve, drain and stop, safe to call repeatedly.

A component's work is its `run`: it sets `started` when it serves, returns soon after `stopping` is set, and
is cancelled when it does not.

No task ends unnoticed. What a component runs beside its own work is a task of `BackgroundTasks`, whose end ends the
component; another component inside it is `serving`; what does not belong to a component is kept going by
`keep_running`; work that ends is in a `StrictTaskGroup`. All of them turn a stray cancellation into an error: the NATS
library cancels what waits for an answer when it reconnects, and a task group of asyncio takes the end of a cancelled
task for intended.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Never, Self, TypeVar, cast

import structlog

from runstream.errors import InternalError, chain_lines

T = TypeVar("T")
RERUN_SECONDS = 0.5
"""Pause before work that failed is begun again."""
log = structlog.get_logger()


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
            self._task = asyncio.create_task(self._run(), name=self.name)
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

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Start it for the length of the block; if it ends before, so does the block, by its error."""
        try:
            await self.start()
            async with BackgroundTasks() as background:
                background.keep(self._outlive(), self.name)
                yield
        finally:
            await self.stop()

    async def _run(self) -> None:
        with only_asked_cancellation(self.name):
            await self.run()

    async def _outlive(self) -> None:
        await self.wait()
        if self.stopping.is_set():
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stop in order; cancel `run` after `stop_seconds`. A second stop waits for the first."""
        self.stopping.set()
        if self._task is None:
            return
        _, pending = await asyncio.wait({self._task}, timeout=self.stop_seconds)
        if pending:
            self._task.cancel()
            await asyncio.wait({self._task})


class StrictTaskGroup(asyncio.TaskGroup):  # noqa: TID251
    """A task group in which a task whose wait was cancelled by a library has failed, instead of having ended well.

    Otherwise half a restored partition is a restored one, and a stream without one of its readers a quiet one.
    """

    def create_task(
        self, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[T]:
        """Start a task; cancel it to end it on purpose."""
        known = name or _name(coro)
        work = cast("Coroutine[Any, Any, T]", coro)
        task = super().create_task(_only_asked(work, known), name=known, context=context)
        task.add_done_callback(lambda _: coro.close())  # of a task that is cancelled before its first step
        return task


class BackgroundTasks:
    """The tasks that run beside a block, until its end cancels them.

    A task that ends before ends the block: an ExceptionGroup has its error, or a `backgroundTaskEnded` of ours. An
    error of the block itself is raised as it is.
    """

    def __init__(self) -> None:
        self._group = StrictTaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            if error is None or group.exceptions != (error,):
                raise

    def keep(self, work: Coroutine[Any, Any, None], name: str = "") -> asyncio.Task[None]:
        """Run work that has no end: its end is an error. Cancel the returned task to end it earlier on purpose."""
        name = name or _name(work)
        task = self.once(_endless(work, name), name)
        task.add_done_callback(lambda _: work.close())  # as above
        return task

    def once(self, work: Coroutine[Any, Any, None], name: str = "") -> asyncio.Task[None]:
        """Run work that may return."""
        task = self._group.create_task(work, name=name or None)
        self._tasks = [*(one for one in self._tasks if not one.done()), task]
        return task


async def keep_running(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> Never:
    """Do work that has no end, until cancelled; when it ends by itself, log why and begin it again."""
    while True:
        try:
            await _endless(work(), name)
        except Exception as error:  # noqa: BLE001  whatever it is, the work has to go on
            log.warning("background work is begun again", action="task_restarted", task=name, errors=chain_lines(error))
        await asyncio.sleep(RERUN_SECONDS)


def _name(work: object) -> str:
    return str(getattr(work, "__qualname__", "background"))


async def _endless(work: Coroutine[Any, Any, None], name: str) -> Never:
    await _only_asked(work, name)
    raise _ended(name, "it has returned")


async def _only_asked(work: Coroutine[Any, Any, T], name: str) -> T:
    with only_asked_cancellation(name):
        return await work


@contextmanager
def only_asked_cancellation(name: str) -> Iterator[None]:
    """Raise InternalError for a cancellation of the block that is not one of its task."""
    try:
        yield
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        raise _ended(name, "what it waited for was cancelled") from error


def _ended(name: str, why: str) -> InternalError:
    return InternalError(
        f"the task {name} has ended: {why}",
        code="backgroundTaskEnded",
        details={"task": name},
        hint="see the log records before this one; a part that has ended is started again",
    )


async def wait_for_first(*waits: Coroutine[Any, Any, T]) -> T:
    """Wait until one of these coroutines ends, cancel the others, and return its result or raise its error."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Do the work for each item, for at most `at_once` concurrently. Raises the error of the first failure."""
    waiting = iter(items)

    async def take() -> None:
        for item in waiting:
            await work(item)

    try:
        async with StrictTaskGroup() as group:
            for _ in range(at_once):
                group.create_task(take())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


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
