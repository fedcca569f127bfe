"""`doctor` and the API's list of executors show clocks that are wrong."""

from __future__ import annotations

import asyncio
import time

import pytest
from msgspec.structs import replace

from runstream.commits import Head
from runstream.database.runs import ExecutorRecord
from runstream.domain.executor import ExecutorState, RegisteredExecutor
from runstream.gateway.responses import executor_shape
from runstream.leases import ExecutorSightings, encode_offer, open_leases
from runstream.service.doctor import executor_clocks
from tests.domain.test_executor_status import REGISTERED
from tests.domain.world import offer
from tests.log.servers import connected


@pytest.mark.parametrize(("skew", "shown"), [(-90.0, ["-90"]), (3600.0, ["+3600"]), (0.0, [])])
async def test_a_clock_that_is_wrong_is_named(nats_url: str, namespace: str, skew: float, shown: list[str]) -> None:
    async with connected(nats_url) as nc:
        board = await open_leases(nc, f"{namespace}_executors", seconds=10)
        lease = board.lease("ex1", lambda: encode_offer(replace(offer("ex1", 0), at=time.time() + skew)))
        holding = asyncio.create_task(lease.run())
        await lease.held.wait()
        found = [finding async for finding in executor_clocks(nc, namespace)]
        sighting = (await ExecutorSightings(board).seen())["ex1"]
        holding.cancel()
        await asyncio.wait({holding})
    assert [round(float(one.found.split()[0])) for one in found] == [round(float(one)) for one in shown]
    record = ExecutorRecord(RegisteredExecutor("ex1", REGISTERED, ExecutorState.REGISTERED), Head(), 0, 0)
    assert round(executor_shape(record, sighting).clock_skew) == round(skew)


async def test_a_deployment_without_executors_has_no_clocks(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        assert [finding async for finding in executor_clocks(nc, namespace)] == []
