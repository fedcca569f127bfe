"""Whatever task of a component is killed, the component ends or goes on with another one: it never stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from runstream.lifecycle import Component
from tests.scheduler.standing import standing
from tests.servers import Servers

World = Callable[[], AbstractAsyncContextManager[Component]]
_LOOK_SECONDS = 10.0
_ALL_SECONDS = 40.0


class KilledError(Exception):
    """An error that no code expects."""


def name_of(task: asyncio.Task[Any]) -> str:
    """The name of a task, or of what it runs; tasks of the same kind share it."""
    name = task.get_name()
    return str(getattr(task.get_coro(), "__qualname__", "")) if name.startswith("Task-") else name


def is_ours(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and "/runstream/" in code.co_filename


def innermost(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """What the task waits for, through the tasks that it waits for."""
    waiter = getattr(task, "_fut_waiter", None)
    while isinstance(waiter, asyncio.Task):
        waiter = getattr(waiter, "_fut_waiter", None)
    return waiter if isinstance(waiter, asyncio.Future) or hasattr(waiter, "set_exception") else None


def is_in_asyncpg(task: asyncio.Task[Any]) -> bool:
    """Return whether it waits inside of asyncpg, whose protocol does not bear that its waiters are ended by others."""
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        if "/asyncpg/" in getattr(getattr(coroutine, "cr_code", None), "co_filename", ""):
            return True
        coroutine = getattr(coroutine, "cr_await", None)
    inner = getattr(task, "_fut_waiter", None)
    return isinstance(inner, asyncio.Task) and is_in_asyncpg(inner)


def kill(task: asyncio.Task[Any], how: str) -> bool:
    """Let what the task waits for fail; return False if it waits for nothing that may."""
    waiter = innermost(task)
    if waiter is None or waiter.done() or is_in_asyncpg(task):
        return False
    if how == "error":
        waiter.set_exception(KilledError())
    else:
        waiter.cancel()
    return True


async def survived(component: Component, victim: asyncio.Task[Any], before: set[asyncio.Task[Any]]) -> bool:
    """Return whether the component goes on; False when it has ended. Times out when it stands still."""
    ended = asyncio.ensure_future(component.wait())
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            while not ended.done():
                await asyncio.sleep(0.01)  # sleeps: a task that replaces another one sends no event
                if not victim.done():
                    return True
                if any(name_of(task) == name_of(victim) for task in asyncio.all_tasks() - before):
                    return True
        return False
    finally:
        ended.cancel()
        await asyncio.wait({ended})


async def kill_each(world: World, how: str) -> set[str]:
    """Kill each kind of task once; return the names of all."""
    tried: set[str] = set()
    try:
        async with asyncio.timeout(_ALL_SECONDS):
            await _kill_each(world, how, tried)
    except TimeoutError:
        pytest.fail(f"not all tasks could be ended in {_ALL_SECONDS} s; tried: {sorted(tried)}")
    return tried


async def _kill_each(world: World, how: str, tried: set[str]) -> None:
    while True:
        around = asyncio.all_tasks()
        async with world() as component:
            while True:
                await asyncio.sleep(0)
                now = asyncio.all_tasks()
                victims = {name_of(task): task for task in now - around if is_ours(task)}
                left = victims.keys() - tried
                if not left and any(task.get_name() == component.name for task in now):
                    return
                if not left:  # it has ended just now, with the tasks that were not tried
                    break
                name = min(left)
                tried.add(name)
                if not kill(victims[name], how):
                    continue
                try:
                    if not await survived(component, victims[name], now):
                        break
                except TimeoutError:
                    pytest.fail(f"without {name}, the {component.name} stands still and does not end")


@asynccontextmanager
async def a_scheduler(servers: Servers) -> AsyncIterator[Component]:
    async with standing(servers) as around:
        scheduler = await around.scheduler()
        await scheduler.start()
        try:
            while len(scheduler.positions()) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # sleeps: until both workers read
            yield scheduler
        finally:
            await scheduler.stop()


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_no_task_of_a_scheduler_ends_unnoticed(servers: Servers, how: str) -> None:
    names = await kill_each(lambda: a_scheduler(servers), how)
    assert {"partition ownership", "partition 0", "Gossip.run", "Projector.run"} <= names
