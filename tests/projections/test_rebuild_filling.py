"""A filled partition is what a worker would have projected, whatever is forgotten and brought back on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from random import Random

import pytest

from runstream.commits import Head
from runstream.database import Database
from runstream.events.executor_task import ExecutorTaskLogStored
from runstream.events.run import RunStarted
from runstream.feed import read_skips
from runstream.log.port import RawMessage
from runstream.projections.fold import PartitionFold
from runstream.projections.fsck import fsck
from runstream.projections.rebuild_filling import Filled, Filling, fill_partition
from runstream.projections.store import ProjectionStore, load_partition
from runstream.subjects import Address
from tests.domain.world import START, World
from tests.factories import run_created
from tests.log.memory import MemoryLog

from .playing import migrated, played
from .test_fsck import logged


@pytest.fixture(autouse=True, params=[1, 5, 2000])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many runs are written together; with few, much is forgotten and brought back."""
    monkeypatch.setattr("runstream.projections.rebuild_filling.PIECE_RUNS", request.param)
    if request.param == 1:
        monkeypatch.setattr("runstream.projections.rebuild_filling.PIECE_CONFIG_BYTES", 100)
        monkeypatch.setattr("runstream.projections.rebuild_filling.KEPT_CONFIG_BYTES", 100)


async def filled(database: Database, log: MemoryLog, random: Random, end: int | None = None) -> Filled:
    until = await log.end(0) if end is None else end

    async def source(after: int) -> AsyncIterator[Sequence[RawMessage]]:
        async with log.read(0, after) as reader:
            read = after
            while read < until:
                messages = await reader.next_batch(min(random.randint(1, 40), until - read))
                read += len(messages)
                yield messages

    told: list[int] = []
    skips = await read_skips(log, 0, until)
    done = await fill_partition(database, log.subjects, 0, source, told.append, skips)
    assert sum(told) > 0
    return done


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_a_filled_partition_is_the_fold_of_its_log(
    seed: int, settled: bool, database_url: str, database_schema: str
) -> None:
    world = played(seed, settled=settled)
    async with migrated(database_url, database_schema) as database:
        log = await logged(world)
        done = await filled(database, log, world.random)
        assert done == Filled(0, len(world.log), 0)
        report = await fsck(database, log)
        assert report.lines()[:-1] == []
        assert report.commits == len(world.log)


async def test_it_goes_on_from_there_like_any_projection(database_url: str, database_schema: str) -> None:
    world = played(5, settled=True)
    async with migrated(database_url, database_schema) as database:
        log = await logged(world)
        half = len(world.log) // 2
        for end in (half // 3, half // 2, half):
            assert (await filled(database, log, world.random, end)).sequence == end
        fold = await load_partition(database, 0, 1)
        assert fold.after == half
        for stored in world.log[half:]:
            needs = fold.needs([stored])
            assert not needs
            fold.apply(stored)
        await ProjectionStore(database).apply(fold.take_changes())
        assert (await fsck(database, log)).clean


async def test_a_change_after_the_end_of_a_run_loads_it_again(database_url: str, database_schema: str) -> None:
    """An executor stores a log after the run was archived."""
    world = played(3, settled=True)
    tasks = [tracked for tracked in world.truth.executor_tasks.values() if tracked.state.settled]
    for tracked in tasks[:4]:
        address = Address(0, "task", tracked.state.id, tracked.state.executor_id)
        late = tracked.head.next_commit(address, (ExecutorTaskLogStored(None),), time=world.now(), actor="executor")
        assert world.append(late)
        assert world.truth.runs[tracked.state.run_id].state.archived
    async with migrated(database_url, database_schema) as database:
        log = await logged(world)
        await filled(database, log, world.random)
        assert (await fsck(database, log)).lines()[:-1] == []


async def test_what_is_in_memory_is_folded_before_anything_else_goes_on(
    database_url: str, database_schema: str
) -> None:
    """Else a run that is written meanwhile would be forgotten between looking for it and folding its commit."""
    world = played(4, settled=True)
    async with migrated(database_url, database_schema) as database:
        log = await logged(world)
        async with log.read(0, 0) as reader:
            messages = await reader.next_batch(len(world.log))
        filling = Filling(database, log.subjects, PartitionFold(0, 1), (), {}, careful=False)
        try:
            with pytest.raises(StopIteration):
                filling.take(messages).send(None)
        finally:
            await filling.close()


async def test_what_does_not_fit_is_parked(database_url: str, database_schema: str) -> None:
    world = played(2)
    async with migrated(database_url, database_schema) as database:
        log = await logged(world)
        unfit = Head().next_commit(Address(0, "run", "r-unfit"), (RunStarted(),), time=START, actor="alice")
        position = await log.append(unfit)
        await log.append(
            Head(1, position.sequence).next_commit(unfit.address, (RunStarted(),), time=START, actor="alice")
        )
        log.put(0, "test.runs.1.0.run.r-broken", b"{")
        done = await filled(database, log, world.random)
        assert done.parked == 3
        assert (await fsck(database, log)).lines()[:-1] == []


async def test_what_postgres_cannot_hold_is_parked(database_url: str, database_schema: str) -> None:
    world = played(2)
    async with migrated(database_url, database_schema) as database:
        log = await logged(world)
        for number in range(2):
            await _created(log, world, f"a\0b{number}", f"r-nul{number}")
        await _created(log, world, "fine", "r-fine")
        done = await filled(database, log, world.random)
        assert done.parked == 2
        assert (await fsck(database, log)).lines()[:-1] == []


async def _created(log: MemoryLog, world: World, name: str, run_id: str) -> None:
    created = run_created(name, run_config="c0")
    await log.append(Head().next_commit(Address(0, "run", run_id), (created,), time=START, actor="alice"))
