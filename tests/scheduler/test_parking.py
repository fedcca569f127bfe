"""A commit that cannot be read, applied or stored harms nobody else, and can be tried again after a fix."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import orjson
import pytest

from runstream.commits import Head
from runstream.database import Database, Transaction
from runstream.database.channel import channel_of
from runstream.database.runs import RunQuery, list_runs
from runstream.events.run import RunCreated
from runstream.ids import executor_task_id, new_id, run_task_id
from runstream.projections.parked import list_parked, request_retry
from runstream.subjects import Address
from runstream.upcasters import UPCASTERS
from tests.domain.world import START, config, task
from tests.servers import Servers

from .standing import FakeExecutor, running, standing

T = TypeVar("T")
ONE = config(task("a"))
GROUP = "/project/p/branch/main"


async def until(database: Database, read: Callable[[Transaction], Awaitable[T]], enough: Callable[[T], bool]) -> T:
    """What is read once it is enough; looked at again with every batch that is projected."""
    connection = await database.connect()
    projected = asyncio.Event()
    try:
        await connection.add_listener(channel_of(database.schema), lambda *_: projected.set())
        while True:
            projected.clear()
            async with database.snapshot() as transaction:
                found = await read(transaction)
            if enough(found):
                return found
            await projected.wait()
    finally:
        await connection.close()


async def phases(transaction: Transaction) -> dict[str, str]:
    page = await list_runs(transaction, RunQuery())
    return {run.id: run.phase.value for run in page.runs}


async def test_an_unknown_event_parks_its_run_alone_until_it_can_be_read(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standing(servers) as around:
        first = await around.create(ONE)
        address = Address(around.runs[first], "run", first)
        body = {
            "id": new_id(),
            "aggregate": address.aggregate,
            "version": 2,
            "time": "2026-01-01T00:00:00Z",
            "actor": "user:later",
            "cause": "",
            "events": [{"type": "RunPondered", "version": 1}],
        }
        await around.nats.jetstream().publish(around.log.subjects.of(address), orjson.dumps(body))
        async with running(await around.scheduler()), FakeExecutor(around, "e1").alive():
            other = await around.create(ONE, "/project/p/branch/dev")
            await until(around.database, phases, lambda found: found.get(other) == "finished")
            (parked, *behind) = await until(around.database, list_parked, bool)
            assert parked.aggregate == address.aggregate
            assert "RunPondered" in parked.reason
            assert all(entry.aggregate == address.aggregate for entry in behind)

            monkeypatch.setitem(UPCASTERS, ("RunPondered", 1), lambda _event: [{"type": "RunCancelled", "version": 1}])
            assert await request_retry(around.database) == 1 + len(behind)
            await until(around.database, phases, lambda found: found[first] == "cancelled")
            assert await until(around.database, list_parked, lambda found: not found) == ()


async def test_a_value_that_postgres_cannot_hold_is_parked(servers: Servers) -> None:
    async with standing(servers) as around:
        good = await around.create(ONE)
        partition = around.runs[good]
        bad = new_id()
        event = RunCreated("a\0b", GROUP, around.configs[good], {}, (), "")
        commit = Head().next_commit(Address(partition, "run", bad), (event,), time=START, actor="user")
        position = await around.log.append(commit)
        later = await around.create(ONE, "/project/p/branch/dev")
        async with running(await around.scheduler()), FakeExecutor(around, "e1").alive():
            ended = await until(
                around.database, phases, lambda found: found.get(good) == found.get(later) == "finished"
            )
            assert bad not in ended
            parked = await until(around.database, list_parked, bool)
        assert (parked[0].aggregate, parked[0].position) == (f"run/{bad}", position)
        # Deciding does not wait for the projection: its task may have run before.
        its_task = executor_task_id(bad, run_task_id(bad, "a"))
        assert {entry.aggregate for entry in parked} <= {f"run/{bad}", f"task/{its_task}"}
