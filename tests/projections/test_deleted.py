"""Deleted runs leave the rows, whatever is folded together; what restarts keep of them stays as long as they do."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace
from sqlalchemy import select, text

from runstream import tables
from runstream.commits import Head
from runstream.database import Database
from runstream.database.runs import get_deleted_run
from runstream.domain.restart import decide_restart
from runstream.domain.run import RestartOrigin, RunState
from runstream.events.executor_task import ExecutorTaskLogStored
from runstream.events.run import RunDeleted, RunRestarted
from runstream.log.port import Log
from runstream.projections.fsck import fsck
from runstream.projections.store import ProjectionStore, load_needed, load_partition
from runstream.subjects import Address, group_root
from tests.domain.test_world import play
from tests.domain.world import World
from tests.factories import run_created

from .playing import batches, folded, migrated
from .test_fsck import logged
from .test_rebuild_filling import filled


def removing(seed: int) -> World:
    """A world in which runs are deleted and restarted all the time."""
    random = Random(seed)  # noqa: S311  # a world, not a secret
    world = World(random)
    for _ in range(6):
        play(world, random, 40)
        world.settle()
        for _ in range(6):
            run_id = random.choice(sorted(world.truth.runs))
            world.remove(run_id) if random.random() < 0.5 else world.restart(run_id)
    world.settle()
    return world


def expected(world: World) -> tuple[set[str], set[str]]:
    """The runs and the executor tasks that rows show."""
    runs = {key: one.state for key, one in world.truth.runs.items() if one.state.deleted_at is None}
    kept = {key for run in runs.values() for key in run.kept_executions}
    own = {key for key, one in world.truth.executor_tasks.items() if one.state.run_id in runs}
    return set(runs), own | kept


async def shown(database: Database) -> tuple[set[str], set[str]]:
    async with database.snapshot() as transaction:
        runs = await transaction.rows(select(tables.runs.c.id))
        tasks = await transaction.rows(select(tables.executor_tasks.c.id))
        of_runs = await transaction.rows(select(tables.run_tasks.c.run_id))
    assert {row["run_id"] for row in of_runs} <= {row["id"] for row in runs}
    return {row["id"] for row in runs}, {row["id"] for row in tasks}


async def project(database: Database, world: World, largest: int) -> None:
    """Project as a worker that is killed after each batch."""
    store = ProjectionStore(database)
    for commits in batches(world.log, world.random, largest):
        fold = await load_partition(database, 0, 1)
        loaded = await load_needed(database, 0, fold.needs(commits))
        fold.runs.update(loaded.runs)
        fold.executor_tasks.update(loaded.executor_tasks)
        fold.configs.update(loaded.configs)
        await store.apply(folded(fold, commits))


async def numbers(database: Database, world: World) -> None:
    """Find each deleted run by its number, in its group and in those above it, and no other run."""
    async with database.snapshot() as transaction:
        for run_id, one in world.truth.runs.items():
            run = one.state
            expected = run_id if run.deleted_at is not None else None
            for group in (run.group, group_root(run.group)):
                assert await get_deleted_run(transaction, group, run.counter) == expected
            assert await get_deleted_run(transaction, f"{group_root(run.group)}/other", run.counter) is None


async def checked(database: Database, log: Log) -> None:
    report = await fsck(database, log)
    assert report.lines()[:-1] == []


@pytest.mark.parametrize("seed", range(4))
async def test_rows_of_deleted_runs_go_but_for_what_others_keep(
    seed: int, database_url: str, database_schema: str
) -> None:
    world = removing(seed)
    gone = [key for key, one in world.truth.runs.items() if one.state.deleted_at is not None]
    assert gone
    async with migrated(database_url, database_schema) as database:
        await project(database, world, random_size(seed))
        assert await shown(database) == expected(world)
        await numbers(database, world)
        await checked(database, await logged(world))


async def test_a_log_that_a_lost_executor_stores_late_changes_nothing(database_url: str, database_schema: str) -> None:
    world = removing(2)
    deleted = {key for key, one in world.truth.runs.items() if one.state.deleted_at is not None}
    tasks = [one for one in world.truth.executor_tasks.values() if one.state.run_id in deleted]
    assert tasks
    for one in tasks:
        address = Address(0, "task", one.state.id, one.state.executor_id)
        events = (ExecutorTaskLogStored(None),)
        assert world.append(one.head.next_commit(address, events, time=world.now(), actor="executor"))
    async with migrated(database_url, database_schema) as database:
        await project(database, world, 40)
        assert await shown(database) == expected(world)
        await checked(database, await logged(world))


def random_size(seed: int) -> int:
    return (3, 40, 400, 4000)[seed % 4]


@pytest.mark.parametrize("seed", range(4))
async def test_a_rebuild_leaves_them_out_too(
    seed: int, database_url: str, database_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.projections.rebuild_filling.PIECE_RUNS", (1, 3, 7, 2000)[seed])
    world = removing(seed)
    async with migrated(database_url, database_schema) as database:
        log = await logged(world)
        await filled(database, log, world.random, len(world.log) // 2)
        await filled(database, log, world.random)
        assert await shown(database) == expected(world)
        await numbers(database, world)
        await checked(database, log)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM deleted_runs", "the log says a row, the database no row"),
        ("UPDATE deleted_runs SET counter = counter + 1000", ".counter: the log says"),
        (
            "INSERT INTO deleted_runs SELECT 'r-none', partition, counter_group, 9999, counter_group FROM deleted_runs "
            "LIMIT 1",
            "[r-none]: the log says no row, the database a row",
        ),
    ],
)
async def test_a_changed_number_is_reported(statement: str, told: str, database_url: str, database_schema: str) -> None:
    world = removing(0)
    async with migrated(database_url, database_schema) as database:
        await project(database, world, 400)
        await database.transaction(lambda transaction: transaction.execute(text(statement)))
        report = await fsck(database, await logged(world))
        assert not report.clean
        assert all(line.startswith("deleted_runs[") and told in line for line in report.lines()[:-1]), report.lines()


async def test_a_restart_that_comes_a_moment_after_the_deletion_harms_nothing(
    database_url: str, database_schema: str
) -> None:
    world = removing(1)
    candidates = [one.state for one in world.truth.runs.values() if one.state.deleted_at is None]
    run, restart = next(found for one in candidates if (found := _restart(world, one)) is not None)
    head = world.truth.runs[run.id].head
    world.append(head.next_commit(Address(0, "run", run.id), (RunDeleted(""),), time=world.now(), actor="user"))
    events = (run_created(run.name, run.group, run.run_config), restart)
    world.append(Head().next_commit(Address(0, "run", "r-late"), events, time=world.now(), actor="user"))
    world.settle()
    for size in (1, 4000):
        schema = f"{database_schema}_{size}"
        async with migrated(database_url, schema) as database:
            await project(database, world, size)
            await checked(database, await logged(world))


def _restart(world: World, run: RunState) -> tuple[RunState, RunRestarted] | None:
    asked = RestartOrigin(run.id, "failed", (), descendants=False, fresh=False)
    try:
        restart = decide_restart(replace(run, archives_removed_at=None), world.truth.configs[run.run_config], asked)
    except Exception:  # noqa: BLE001  it cannot be restarted
        return None
    return (run, restart) if any(kept.executor_task_id for kept in restart.kept) else None
