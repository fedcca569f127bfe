"""A log of each kind, with a namespace of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import nats
import pytest

from runstream.log.jetstream import open_log
from runstream.log.port import Log
from tests.log.memory import MemoryLog

OpenLog = Callable[[], AbstractAsyncContextManager[Log]]


@pytest.fixture(params=["memory", "jetstream"])
def new_log(request: pytest.FixtureRequest) -> OpenLog:
    """Opens a new, empty log with two partitions."""
    if request.param == "memory":
        return _memory
    url, namespace = request.getfixturevalue("nats_url"), request.getfixturevalue("namespace")

    @asynccontextmanager
    async def jetstream() -> AsyncIterator[Log]:
        nc = await nats.connect(url)
        try:
            async with await open_log(nc, namespace, create=True, partitions=2) as log:
                yield log
        finally:
            await nc.close()

    return jetstream


@asynccontextmanager
async def _memory() -> AsyncIterator[Log]:
    yield MemoryLog(partitions=2)
