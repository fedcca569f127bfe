"""Whatever task of a component is killed, the component ends or goes on with another one: it never stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runstream.datamanager.datamanager import DataManager
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.messaging import Questions
from runstream.leases import open_leases
from runstream.lifecycle import Component
from runstream.log.jetstream import open_log
from runstream.maintenance.instances import Roster, ThisInstance
from runstream.maintenance.mode import Mode
from runstream.objects import PosixObjects
from tests.datamanager.rig import DEPLOYMENT
from tests.executor.rig import rig
from tests.gateway.test_dependencies import place
from tests.maintenance.world import LEASE_SECONDS
from tests.scheduler.standing import standing
from tests.servers import Servers

World = Callable[[], AbstractAsyncContextManager[Component]]
_LOOK_SECONDS = 10.0
_ALL_SECONDS = 40.0
_REQUESTS = {"_ask"}


class KilledError(Exception):
    """An error that no code expects."""


def name_of(task: asyncio.Task[Any]) -> str:
    """The name of a task, or of what it runs; tasks of the same kind share it."""
    name = task.get_name()
    return str(getattr(task.get_coro(), "__qualname__", "")) if name.startswith("Task-") else name


def is_ours(task: asyncio.Task[Any]) -> bool:
    """Return whether it runs code of ours until it is stopped: a single request ends, and none replaces it."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and "/runstream/" in code.co_filename and code.co_name not in _REQUESTS


def innermost(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """What the task waits for, through the tasks that it waits for."""
    waiter = getattr(task, "_fut_waiter", None)
    while isinstance(waiter, asyncio.Task):
        waiter = getattr(waiter, "_fut_waiter", None)
    return waiter if isinstance(waiter, asyncio.Future) or hasattr(waiter, "set_exception") else None


def is_of_thread(future: asyncio.Future[Any]) -> bool:
    """Return whether a thread sets the future's result, which does not bear that others end it."""
    callbacks = getattr(future, "_callbacks", None) or ()
    return any("_chain_future" in getattr(callback, "__qualname__", "") for callback, _ in callbacks)


def is_in_asyncpg(task: asyncio.Task[Any]) -> bool:
    """Return whether it waits inside of asyncpg, which does not bear that others end its futures."""
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        file = getattr(getattr(coroutine, "cr_code", None), "co_filename", "")
        if "/asyncpg/" in file:
            return True
        coroutine = getattr(coroutine, "cr_await", None)
    inner = getattr(task, "_fut_waiter", None)
    return isinstance(inner, asyncio.Task) and is_in_asyncpg(inner)


def kill(task: asyncio.Task[Any], how: str) -> bool:
    """Let what the task waits for fail; return False if it waits for nothing that may."""
    waiter = innermost(task)
    if waiter is None or waiter.done() or is_of_thread(waiter) or is_in_asyncpg(task):
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
            fresh = True
            while True:
                await asyncio.sleep(0)
                now = asyncio.all_tasks()
                victims = {name_of(task): task for task in now - around if is_ours(task)}
                left = victims.keys() - tried
                if not left and fresh:
                    return
                if not left:  # it may be ending, with the tasks that were not tried
                    break
                name = min(left)
                tried.add(name)
                if not kill(victims[name], how):
                    continue
                fresh = False
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


@asynccontextmanager
async def an_instance(servers: Servers) -> AsyncIterator[Component]:
    async with nats_connection(servers.nats_url) as nc:
        log = await open_log(nc, servers.namespace, create=True, partitions=2)
        board = await open_leases(nc, f"{servers.namespace}_instances", seconds=LEASE_SECONDS)
        instance = ThisInstance(nc, board, servers.namespace, "i1", ("scheduler",), Mode("runs", log))
        await instance.start()
        try:
            yield instance
        finally:
            await instance.stop()
            await log.close()


@asynccontextmanager
async def a_roster(servers: Servers) -> AsyncIterator[Component]:
    async with nats_connection(servers.nats_url) as nc:
        roster = Roster(await open_leases(nc, f"{servers.namespace}_instances", seconds=LEASE_SECONDS))
        await roster.start()
        try:
            yield roster
        finally:
            await roster.stop()


@asynccontextmanager
async def an_executor(servers: Servers, folder: Path) -> AsyncIterator[Component]:
    async with nats_connection(servers.nats_url) as nc:
        log = await open_log(nc, servers.namespace, create=True, partitions=2)
        async with rig(folder, log=log, nats=nc, namespace=servers.namespace) as it:
            assert it.executor is not None
            yield it.executor
        await log.close()


@asynccontextmanager
async def a_datamanager(servers: Servers, folder: Path) -> AsyncIterator[Component]:
    async with standing(servers) as around:

        async def moved(_: int) -> None:
            await asyncio.Event().wait()

        datamanager = DataManager(
            lambda: around.log,
            PosixObjects(folder),
            around.database,
            DEPLOYMENT,
            moved=moved,
            questions=Questions(around.nats),
        )
        await datamanager.start()
        try:
            yield datamanager
        finally:
            await datamanager.stop()


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_no_task_of_a_scheduler_ends_unnoticed(servers: Servers, how: str) -> None:
    names = await kill_each(lambda: a_scheduler(servers), how)
    assert {"partition ownership", "partition 0", "Gossip.run", "Projector.run"} <= names


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_no_task_of_an_instance_ends_unnoticed(servers: Servers, how: str) -> None:
    assert {"ThisInstance._listen", "ThisInstance._hold", "Mode.run"} <= await kill_each(
        lambda: an_instance(servers), how
    )


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_no_task_of_a_roster_ends_unnoticed(servers: Servers, how: str) -> None:
    assert "Roster._follow" in await kill_each(lambda: a_roster(servers), how)


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_no_task_of_an_executor_ends_unnoticed(servers: Servers, tmp_path: Path, how: str) -> None:
    names = await kill_each(lambda: an_executor(servers, tmp_path), how)
    assert {"Presence.run", "TaskExecutor._read", "live logs", "commit partition 0"} <= names


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_no_task_of_a_datamanager_ends_unnoticed(servers: Servers, tmp_path: Path, how: str) -> None:
    names = await kill_each(lambda: a_datamanager(servers, tmp_path), how)
    assert "partition ownership" in names


@asynccontextmanager
async def a_gateway(servers: Servers, folder: Path) -> AsyncIterator[Component]:
    async with place(servers, folder) as at:
        yield at.gateway


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_no_task_of_a_gateway_ends_unnoticed(servers: Servers, tmp_path: Path, how: str) -> None:
    assert "freshness" in await kill_each(lambda: a_gateway(servers, tmp_path), how)
