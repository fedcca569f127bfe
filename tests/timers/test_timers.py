"""A timer fires once it is due, even after a crash of the server or of its consumer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runstream.errors import BadRequestError
from runstream.timers import DueTimer, Timers, open_timers
from tests.log.servers import connected, killed_and_started, own_server


def soon(seconds: float = 1) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def first(timers: Timers) -> DueTimer:
    async for due in timers.due():
        await due.done()
        return due
    raise AssertionError


async def test_a_timer_fires_when_it_is_due_and_not_before(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        timers = await open_timers(nc, namespace)
        at = soon(0.3)
        await timers.schedule("task1", at, b"stop it")
        due = await first(timers)
        assert (due.key, due.payload) == ("task1", b"stop it")
        assert datetime.now(UTC) >= at


async def test_a_time_in_the_past_fires_at_once(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        timers = await open_timers(nc, namespace)
        await timers.schedule("task1", soon(-3600), b"x")
        assert (await first(timers)).key == "task1"


async def test_the_newest_schedule_of_a_key_holds(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        timers = await open_timers(nc, namespace)
        await timers.schedule("task1", soon(3600), b"late")
        await timers.schedule("task1", soon(0.1), b"early")
        assert (await first(timers)).payload == b"early"


async def test_a_cancelled_timer_does_not_fire(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        timers = await open_timers(nc, namespace)
        at = soon(0.1)
        await timers.schedule("task1", at, b"x")
        await timers.schedule("task2", at, b"x")
        await timers.cancel("task1")
        await timers.cancel("never")
        assert (await first(timers)).key == "task2"


async def test_unprocessed_messages_are_delivered_again(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        timers = await open_timers(nc, namespace, again_seconds=0.5)
        await timers.schedule("task1", soon(-1), b"x")
        async for due in timers.due():
            assert due.key == "task1"
            break
        assert (await first(timers)).key == "task1"


async def test_no_timer_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    async with own_server(tmp_path) as server, connected(server.url) as nc:
        timers = await open_timers(nc, "killed")
        waiting = asyncio.create_task(collected(timers, 2))
        await timers.schedule("while-away", soon(0.1), b"x")
        await timers.schedule("later", soon(2), b"x")
        await killed_and_started(server)
        assert await waiting == {"while-away", "later"}


async def collected(timers: Timers, count: int) -> set[str]:
    keys: set[str] = set()
    async for due in timers.due():
        await due.done()
        keys.add(due.key)
        if len(keys) == count:
            break
    return keys


@pytest.mark.parametrize("key", ["", "a.b", "*", "x y"])
async def test_a_key_that_is_no_token_is_refused(nats_url: str, namespace: str, key: str) -> None:
    async with connected(nats_url) as nc:
        timers = await open_timers(nc, namespace)
        with pytest.raises(BadRequestError):
            await timers.schedule(key, soon(), b"x")
        with pytest.raises(BadRequestError):
            await timers.cancel(key)


async def test_a_time_without_zone_is_refused(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        timers = await open_timers(nc, namespace)
        with pytest.raises(BadRequestError, match="is not in UTC"):
            await timers.schedule("task1", datetime(2026, 1, 1), b"x")  # noqa: DTZ001
