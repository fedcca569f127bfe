"""Streams of a client: whoever leaves one in the middle leaves no connection open, and no generator half closed.

`async for … in client.events.tail()` may be left by `break`, `return` or an exception. Python then finalizes the
generators behind it in an order of its own, side by side at the end of `asyncio.run`, and each of them complains that
another one is closing it. So a loop holds a `Stream`, and only the client closes what is behind it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class Streams:
    """The open streams of one client, and those that were left and are being closed."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[Stream[Any]] = weakref.WeakSet()
        self._left: deque[AsyncGenerator[Any, None]] = deque()
        self._closing: set[asyncio.Task[None]] = set()

    def stream(self, items: AsyncGenerator[T, None]) -> Stream[T]:
        """Return the items as a stream that this client closes."""
        stream = Stream(items, self)
        self._open.add(stream)
        return stream

    def leave(self, items: AsyncGenerator[Any, None], loop: asyncio.AbstractEventLoop) -> None:
        """Close what nobody reads any more, soon; may be called from any thread, as finalizers are."""
        self._left.append(items)
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._begin_closing)

    async def close(self) -> None:
        """Close all streams."""
        for stream in list(self._open):
            await stream.aclose()
        await self._close_left()
        if self._closing:
            await asyncio.wait(self._closing)

    def _begin_closing(self) -> None:
        if self._left:
            task = asyncio.get_running_loop().create_task(self._close_left())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close_left(self) -> None:
        while self._left:
            await self._left.popleft().aclose()


class Stream(Generic[T]):
    """Items as they arrive. Close it with `async with`, `aclose`, or by leaving its loop."""

    def __init__(self, items: AsyncGenerator[T, None], streams: Streams) -> None:
        self._items = items
        self._streams = streams
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        self._loop = self._loop or asyncio.get_running_loop()
        return await anext(self._items)

    async def aclose(self) -> None:
        """Close the connection; the stream has ended then."""
        self._loop = None
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._loop is not None:  # it was begun, and not closed
            self._streams.leave(self._items, self._loop)
