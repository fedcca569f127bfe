"""A worker drops ended and unused state from memory, but never state that is not in a row yet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import pytest
from sqlalchemy import text

from runstream.commits import Head
from runstream.database import Transaction
from runstream.events.event import DomainEvent
from runstream.events.run_config import RunConfigStored
from runstream.ids import new_id
from runstream.run_states import RunPhase
from runstream.scheduler.scheduler import Scheduler
from runstream.subjects import Address, group_root, partition_of
from tests.domain.world import config, task
from tests.factories import run_created
from tests.scheduler.standing import Standing, running, standing
from tests.servers import Servers

GROUP = "/project/p/branch/main"


async def begun(around: Standing, kind: Literal["run", "runconfig"], event: DomainEvent) -> str:
    """The id of something new in the partition of `GROUP`."""
    key = new_id()
    address = Address(partition_of(group_root(GROUP), around.log.partitions), kind, key)
    await around.log.append(Head().next_commit(address, (event,), time=datetime.now(UTC), actor="user"))
    return key


async def taken_in(around: Standing, scheduler: Scheduler) -> None:
    """Wait until the workers know everything that is in the log now; they may know what they added since, too."""
    ends = {partition: await around.log.end(partition) for partition in range(around.log.partitions)}
    while (known := scheduler.positions()).keys() != ends.keys() or any(known[key] < end for key, end in ends.items()):
        await around.nats.flush()


async def rows(around: Standing) -> int:
    """How many run configs are in the rows."""
    async with around.database.snapshot() as transaction:
        (found,) = await transaction.rows(text("SELECT count(*) AS n FROM run_configs"))
    return int(found["n"])


async def test_a_config_stays_until_it_is_in_the_rows(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.scheduler.worker.MAX_CONFIGS", 2)
    monkeypatch.setattr("runstream.scheduler.projector.PACE_SECONDS", 3600.0)
    async with standing(servers) as around:
        scheduler = await around.scheduler()
        stored = RunConfigStored(config(task("a")))

        async def while_nothing_is_projected(transaction: Transaction) -> str:
            await transaction.execute(text("LOCK TABLE run_configs IN EXCLUSIVE MODE"))
            used = await begun(around, "runconfig", stored)
            await begun(around, "run", run_created("first", GROUP, used))
            await taken_in(around, scheduler)
            waiting = await begun(around, "runconfig", stored)
            await begun(around, "runconfig", stored)
            await taken_in(around, scheduler)
            return waiting

        async with running(scheduler):
            await taken_in(around, scheduler)
            waiting = await around.database.transaction(while_nothing_is_projected)
            while not await rows(around):
                pass
            await taken_in(around, scheduler)
            run = await begun(around, "run", run_created("second", GROUP.replace("main", "other"), waiting))
            partition = partition_of(group_root(GROUP), around.log.partitions)
            await around.folded_until(
                partition, lambda fold: run in fold.runs and fold.runs[run].state.phase is RunPhase.RUNNING
            )
