"""No task of a component ends unnoticed: by an error, by returning, or because what it waited for was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Self

import pytest

from runstream.commits import LogPosition
from runstream.errors import InternalError, sentence_of
from runstream.gateway.streaming import LiveResponse, SendBytes
from runstream.lifecycle import BackgroundTasks, Component, StrictTaskGroup, keep_running
from runstream.log.tail import TailScope, tail

Work = Callable[[], "asyncio.Future[None]"]


async def fails() -> None:
    raise ValueError("it broke")


async def returns() -> None:
    return


async def is_cancelled_by_a_library() -> None:
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(waiter.cancel)
    await waiter


class Holding(Component):
    """A component beside whose work something else runs."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self._work = work

    async def run(self) -> None:
        async with BackgroundTasks() as background:
            background.keep(self._work(), "the beside")  # type: ignore[arg-type]
            self.started.set()
            await self.stopping.wait()


class Outer(Component):
    """A component with another one inside."""

    def __init__(self, inner: Component) -> None:
        super().__init__()
        self.inner = inner

    async def run(self) -> None:
        async with self.inner.serving():
            self.started.set()
            await self.stopping.wait()


@pytest.mark.parametrize("work", [fails, returns, is_cancelled_by_a_library])
@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_the_end_of_a_background_task_ends_its_component_and_those_around_it(
    work: Callable[[], object], depth: int
) -> None:
    component: Component = Holding(work)
    for _ in range(depth):
        component = Outer(component)
    await component.start()
    with pytest.raises(ExceptionGroup) as caught:
        await component.wait()
    assert ("it broke" if work is fails else "the task the beside has ended") in sentence_of(caught.value)
    await component.stop()


@pytest.mark.parametrize("depth", [0, 2])
async def test_a_component_stops_with_its_background_tasks(depth: int) -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    component: Component = Holding(endless)
    for _ in range(depth):
        component = Outer(component)
    await component.start()
    await component.stop()
    await component.wait()
    assert ended.is_set()


async def test_a_background_task_may_be_ended_on_purpose_and_one_with_an_end_may_return() -> None:
    async with BackgroundTasks() as background:
        first = background.keep(asyncio.Event().wait(), "first")  # type: ignore[arg-type]
        second = background.once(returns())
        first.cancel()
        await asyncio.wait({first, second})
        background.keep(asyncio.Event().wait(), "cancelled before its first step")  # type: ignore[arg-type]


async def test_an_error_of_the_block_beside_background_tasks_is_raised_as_it_is() -> None:
    class Refusing(Component):
        async def run(self) -> None:
            async with Holding(asyncio.Event().wait).serving():
                raise InternalError("no", code="portNotAvailable")

    with pytest.raises(InternalError, match="no"):
        await Refusing().start()


async def test_a_group_of_tasks_fails_when_a_library_cancels_what_one_waits_for() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with StrictTaskGroup() as group:
            group.create_task(is_cancelled_by_a_library())
    assert "the task is_cancelled_by_a_library has ended" in sentence_of(caught.value)
    async with StrictTaskGroup() as group:
        group.create_task(asyncio.Event().wait()).cancel()  # on purpose
        group.create_task(returns())


class Reader:
    """A reader of a partition whose connection is lost."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def next_batch(self, _most: int) -> None:
        await is_cancelled_by_a_library()


async def test_a_tail_of_the_log_that_loses_a_reader_ends_with_an_error() -> None:
    scope = TailScope({0: (), 1: ()})
    log: Any = SimpleNamespace(read=lambda *_, **__: Reader())
    with pytest.raises(ExceptionGroup) as caught:
        async with tail(log, scope, LogPosition(1, (0, 0))) as take:
            await take()
    assert "the task tail of partition 0 has ended" in sentence_of(caught.value)


async def test_a_stream_whose_writer_is_cancelled_by_a_library_does_not_look_complete() -> None:
    sent: list[Any] = []

    async def write(send: SendBytes) -> None:
        await send(b"half")
        await is_cancelled_by_a_library()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    response = LiveResponse(write, media_type="text/plain", headers={}, stopping=asyncio.Event())
    with pytest.raises(ExceptionGroup):
        await response({"type": "http"}, receive, send)
    assert sent[-1]["body"] == b"half"
    assert sent[-1]["more_body"]


async def test_a_component_whose_wait_is_cancelled_by_a_library_ends_with_an_error() -> None:
    class Waiting(Component):
        async def run(self) -> None:
            self.started.set()
            await is_cancelled_by_a_library()

    component = Waiting()
    with pytest.raises(InternalError, match="what it waited for was cancelled"):
        await component.start()
    with pytest.raises(InternalError, match="what it waited for was cancelled"):
        await component.wait()


@pytest.mark.parametrize("work", [fails, returns, is_cancelled_by_a_library])
async def test_work_outside_of_components_is_begun_again(
    work: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.lifecycle.RERUN_SECONDS", 0)
    begun: asyncio.Queue[None] = asyncio.Queue()

    async def counted() -> None:
        begun.put_nowait(None)
        await work()  # type: ignore[misc]

    running = asyncio.create_task(keep_running("x", counted))
    for _ in range(3):
        await begun.get()
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
