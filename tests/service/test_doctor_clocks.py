"""`doctor` says what executors announce; it and the API's list of executors show clocks that are wrong."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from runstream.commits import Head
from runstream.database.runs import ExecutorRecord
from runstream.domain.executor import ExecutorState, RegisteredExecutor
from runstream.gateway.responses import executor_shape
from runstream.leases import ExecutorSightings, encode_offer, open_leases
from runstream.service import doctor
from runstream.service.doctor import executors
from runstream.settings import ExecutorSettings, Settings
from tests.domain.test_executor_status import REGISTERED
from tests.domain.world import offer
from tests.log.servers import connected


@pytest.mark.parametrize(("skew", "shown"), [(-90.0, ["-90"]), (3600.0, ["+3600"]), (0.0, [])])
async def test_a_clock_that_is_wrong_is_named(
    nats_url: str, namespace: str, tmp_path: Path, skew: float, shown: list[str]
) -> None:
    async with connected(nats_url) as nc:
        board = await open_leases(nc, f"{namespace}_executors", seconds=10)
        lease = board.lease("ex1", lambda: encode_offer(replace(offer("ex1", 0), at=time.time() + skew)))
        holding = asyncio.create_task(lease.run())
        await lease.held.wait()
        settings = Settings(data_dir=tmp_path, namespace=namespace)
        found = [one async for one in executors(nc, settings) if one.what == "clock of executor ex1"]
        sighting = (await ExecutorSightings(board).seen())["ex1"]
        holding.cancel()
        await asyncio.wait({holding})
    assert [round(float(one.found.split()[0])) for one in found] == [round(float(one)) for one in shown]
    record = ExecutorRecord(RegisteredExecutor("ex1", REGISTERED, ExecutorState.REGISTERED), Head(), 0, 0)
    assert round(executor_shape(record, sighting).clock_skew) == round(skew)


async def test_how_many_tasks_run_at_once_is_what_each_executor_announces(
    nats_url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "holder", lambda _: os.getpid())
    (tmp_path / "executor").mkdir()
    (tmp_path / "executor" / "id").write_text("ex1\n")
    settings = Settings(data_dir=tmp_path, namespace=namespace, executor=ExecutorSettings(active_tasks_limit=2))
    async with connected(nats_url) as nc:
        board = await open_leases(nc, f"{namespace}_executors", seconds=10)
        offers = replace(offer("ex1", 4321), open_tasks={"0": 2, "3": 1}), offer("ex2", 0)
        leases = [board.lease(one.executor_id, lambda one=one: encode_offer(one)) for one in offers]  # type: ignore[misc]
        holding = [asyncio.create_task(lease.run()) for lease in leases]
        for lease in leases:
            await lease.held.wait()
        found = {one.what: one.found async for one in executors(nc, settings) if not one.what.startswith("clock")}
        for task in holding:
            task.cancel()
        await asyncio.wait(holding)
    assert found.pop("open files").endswith(" for 4,321 tasks at once")
    assert found == {
        "executor ex1": "takes 4,321 tasks at once, has 3 open tasks",
        "executor ex2": "takes any number of tasks at once, has 0 open tasks",
    }
    assert "open files" not in {one.what async for one in doctor.machine(settings)}, (
        "its settings are not the executor's"
    )


async def test_a_deployment_without_executors_has_no_clocks(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with connected(nats_url) as nc:
        assert [one async for one in executors(nc, Settings(data_dir=tmp_path, namespace=namespace))] == []
