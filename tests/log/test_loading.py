"""Filling streams with a log that exists already, and when it counts as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runstream.codec import ID_HEADER
from runstream.errors import InternalError
from runstream.jetstream.publisher import Publisher
from runstream.log import streams
from runstream.log.jetstream import open_log
from runstream.log.loading import BATCH_COMMITS, Load, StreamLoader
from runstream.log.streams import wait_for_log
from runstream.subjects import Subjects
from tests.log.servers import connected


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[Publisher]:
    async with connected(url) as nc:
        publisher = Publisher(nc)
        await publisher.start()
        yield publisher
        await publisher.close()


def loads(subjects: Subjects, first: int, last: int, size: int = 100) -> list[Load]:
    subject = subjects.prefix(0) + ".run."
    return [Load(f"{subject}{n % 7}", b"x" * size, {ID_HEADER: f"id-{n}"}) for n in range(first, last + 1)]


async def test_a_log_is_loaded_in_order_and_then_described(nats_url: str, namespace: str) -> None:
    subjects = Subjects(namespace, "runs", 3)
    async with connected(nats_url) as nc, publishing(nats_url) as publisher:
        await streams.create_streams(nc, subjects, 2, 1)
        assert await streams.ends(nc, subjects, 3) == (0, 0, None)
        loader = StreamLoader(publisher, subjects.stream(0))
        await loader.load([])
        await loader.load(loads(subjects, 1, 1))
        await loader.load(loads(subjects, 2, 2 * BATCH_COMMITS + 5))
        await loader.load(loads(subjects, 2 * BATCH_COMMITS + 6, 2 * BATCH_COMMITS + 15, size=700_000))
        assert loader.end == 2 * BATCH_COMMITS + 15
        assert await streams.ends(nc, subjects, 2) == (loader.end, 0)
        assert await streams.described(nc, namespace, "runs") is None
        first = await streams.describe(nc, subjects, 2)
        assert await streams.describe(nc, Subjects(namespace, "runs", 4), 2) == first
        second = await streams.describe(nc, Subjects(namespace, "runs", 4), 2, instead=first)
        assert second.epoch == 4
        assert await streams.describe(nc, subjects, 2, instead=second) == first
        async with await open_log(nc, namespace) as log, log.read(0, loader.end - 1) as reader:
            assert (await reader.next_batch())[0].headers[ID_HEADER] == f"id-{loader.end}"


async def test_what_does_not_follow_is_refused(nats_url: str, namespace: str) -> None:
    subjects = Subjects(namespace, "runs", 1)
    async with connected(nats_url) as nc, publishing(nats_url) as publisher:
        await streams.create_streams(nc, subjects, 1, 1)
        await StreamLoader(publisher, subjects.stream(0)).load(loads(subjects, 1, 10))
        for end, first in ((0, 11), (9, 11), (10, 5)):
            with pytest.raises(InternalError) as raised:
                await StreamLoader(publisher, subjects.stream(0), end).load(loads(subjects, first, first + 9))
            assert raised.value.code == "notLoaded"
        assert await streams.ends(nc, subjects, 1) == (10,)


async def test_a_log_that_is_withdrawn_and_deleted_is_made_anew(nats_url: str, namespace: str) -> None:
    subjects = Subjects(namespace, "runs", 1)
    async with connected(nats_url) as nc:
        await (await open_log(nc, namespace, create=True, partitions=2)).close()
        await streams.withdraw(nc, namespace, "runs")
        await streams.withdraw(nc, namespace, "runs")
        assert await streams.described(nc, namespace, "runs") is None
        for _ in range(2):
            await streams.delete_stream(nc, subjects, 1)
        assert await streams.ends(nc, subjects, 2) == (0, None)
        async with await open_log(nc, namespace, create=True, partitions=2) as log:
            assert await log.end(1) == 0


async def test_waiting_for_a_log_ends_once_another_process_creates_it(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc, connected(nats_url) as other:
        assert not await wait_for_log(nc, namespace, seconds=0.05)
        waiting = asyncio.create_task(wait_for_log(nc, namespace))
        async with await open_log(other, namespace, create=True, partitions=1):
            assert await waiting
            assert await wait_for_log(nc, namespace)
