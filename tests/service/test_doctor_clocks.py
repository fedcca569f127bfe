"""`doctor` names executors whose clocks are wrong."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from runstream.leases import open_leases
from runstream.leases.offers import encode_offer
from runstream.service.doctor.nats import _executor_clocks
from tests.domain.world import offer
from tests.log.servers import connected


@pytest.mark.parametrize(("skew", "shown"), [(-90.0, ["-90"]), (3600.0, ["+3600"]), (0.0, [])])
async def test_a_clock_that_is_wrong_is_named(nats_url: str, namespace: str, skew: float, shown: list[str]) -> None:
    async with connected(nats_url) as nc:
        board = await open_leases(nc, f"{namespace}_executors", seconds=10)
        lease = board.lease("ex1", lambda: encode_offer(replace(offer("ex1", 0), at=time.time() + skew)))
        holding = asyncio.create_task(lease.run())
        await lease.held.wait()
        found = [finding async for finding in _executor_clocks(nc, namespace)]
        holding.cancel()
        await asyncio.wait({holding})
    assert [round(float(one.found.split()[0])) for one in found] == [round(float(one)) for one in shown]


async def test_a_deployment_without_executors_has_no_clocks(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        assert [finding async for finding in _executor_clocks(nc, namespace)] == []
