from __future__ import annotations

import asyncpg
import pytest
from msgspec.structs import replace

from runstream.database import Database
from runstream.database.failures import UnstorableError
from runstream.database.transaction import WriterTransaction
from runstream.domain.run import RunState
from runstream.errors import InternalError
from runstream.projections.fold import Changed, Changes, Needs, PartitionFold, Tracked
from runstream.projections.parked import list_parked
from runstream.projections.store import FencedError, ProjectionStore, load_needed, load_partition

from .playing import batches, folded, migrated, played, project


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_loaded_is_what_was_folded(seed: int, database_url: str, database_schema: str) -> None:
    world = played(seed)
    async with migrated(database_url, database_schema) as database:
        fold = await load_partition(database, 0, 1)
        store = ProjectionStore(database)
        for commits in batches(world.log, world.random):
            await project(store, fold, commits)

        loaded = await load_partition(database, 0, 1)

        active = {run for run, tracked in world.truth.runs.items() if not tracked.state.archived}
        assert loaded.after == len(world.log)
        assert loaded.runs == {run: world.truth.runs[run] for run in active}
        assert loaded.executor_tasks == {
            task: tracked for task, tracked in world.truth.executor_tasks.items() if tracked.state.run_id in active
        }
        assert loaded.configs == {
            tracked.state.run_config: world.truth.configs[tracked.state.run_config] for tracked in loaded.runs.values()
        }
        assert loaded.executors == world.truth.executors
        assert loaded.counters == world.truth.counters
        assert loaded.run_sequence == world.truth.run_sequence


async def test_a_worker_goes_on_from_what_it_loads(database_url: str, database_schema: str) -> None:
    """Nothing but the rows is kept between batches, as if the worker were killed after each."""
    world = played(7)
    async with migrated(database_url, database_schema) as database:
        store = ProjectionStore(database)
        for commits in batches(world.log, world.random, 25):
            fold = await load_partition(database, 0, 1)
            await _load_cold(database, fold, fold.needs(commits))
            await project(store, fold, commits)

        for run_id, tracked in world.truth.runs.items():
            one = Needs(frozenset({run_id}), frozenset(), frozenset())
            assert (await load_needed(database, 0, one)).runs == {run_id: tracked}


async def _load_cold(database: Database, fold: PartitionFold, needs: Needs) -> None:
    loaded = await load_needed(database, 0, needs)
    fold.runs.update(loaded.runs)
    fold.executor_tasks.update(loaded.executor_tasks)
    fold.configs.update(loaded.configs)


async def test_an_archived_run_is_loaded_when_it_is_needed(database_url: str, database_schema: str) -> None:
    world = played(3, settled=True)
    async with migrated(database_url, database_schema) as database:
        fold = await load_partition(database, 0, 1)
        await project(ProjectionStore(database), fold, world.log)
        assert not (await load_partition(database, 0, 1)).runs
        task = next(iter(world.truth.executor_tasks.values())).state

        loaded = await load_needed(database, 0, Needs(frozenset(), frozenset({task.id, "none"}), frozenset({"none"})))

        assert loaded.runs == {task.run_id: world.truth.runs[task.run_id]}
        assert loaded.executor_tasks[task.id] == world.truth.executor_tasks[task.id]
        assert loaded.configs == {task.run_config: world.truth.configs[task.run_config]}


async def test_the_second_of_two_owners_is_fenced_and_writes_nothing(database_url: str, database_schema: str) -> None:
    world = played(11)
    async with migrated(database_url, database_schema) as database:
        store = ProjectionStore(database)
        zombie, owner = await load_partition(database, 0, 1), await load_partition(database, 0, 1)
        await project(store, owner, world.log[:20])

        with pytest.raises(FencedError, match="is 1:20, this worker left it at 1:0"):
            await project(store, zombie, world.log[:9])

        assert (await load_partition(database, 0, 1)).runs == owner.runs


async def test_applying_again_what_was_applied_is_a_success(database_url: str, database_schema: str) -> None:
    """The connection may be lost after the commit and before its answer."""
    world = played(11)
    async with migrated(database_url, database_schema) as database:
        store = ProjectionStore(database)
        fold = await load_partition(database, 0, 1)
        changes = folded(fold, world.log[:20])

        await store.apply(changes)
        await store.apply(changes)

        assert (await load_partition(database, 0, 1)).after == 20


async def test_a_partition_that_was_never_loaded_has_no_checkpoint_to_move(
    database_url: str, database_schema: str
) -> None:
    async with migrated(database_url, database_schema) as database:
        with pytest.raises(FencedError, match="is missing"):
            await ProjectionStore(database).apply(Changes(0, 1, 0, 5))


async def test_rows_and_checkpoint_change_together_or_not_at_all(database_url: str, database_schema: str) -> None:
    """The backend dies after all rows are written and before the commit."""
    world = played(5)
    async with migrated(database_url, database_schema) as database:
        store = ProjectionStore(database)
        fold = await load_partition(database, 0, 1)
        await project(store, fold, world.log[:10])
        changes = folded(fold, world.log[10:60])
        before = await load_partition(database, 0, 1)

        await _die_after_rows(database, changes)

        after = await load_partition(database, 0, 1)
        assert (after.after, after.runs, after.executor_tasks) == (10, before.runs, before.executor_tasks)
        await store.apply(changes)
        assert (await load_partition(database, 0, 1)).after == 60


async def _die_after_rows(database: Database, changes: Changes) -> None:
    class Dying(Database):
        async def write(self, work, **options):  # type: ignore[no-untyped-def]
            async def and_die(writing: WriterTransaction) -> None:
                await work(writing)
                with pytest.raises(asyncpg.PostgresError):
                    await writing.connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

            await super().write(and_die, **options)

    dying = Dying(database.url, database.schema)
    with pytest.raises(InternalError) as raised:
        await ProjectionStore(dying).apply(changes)
    assert raised.value.code == "databaseDisconnected"
    await dying.close()


async def test_a_checkpoint_of_another_epoch_stops_the_worker(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        await load_partition(database, 0, 1)
        with pytest.raises(InternalError, match="is of epoch 1, the log is of epoch 2") as raised:
            await load_partition(database, 0, 2)
        assert raised.value.code == "foreignCheckpoint"


@pytest.mark.parametrize("change", [{"name": "a\0b"}, {"counter": 1 << 63}], ids=["nul", "too large"])
async def test_what_postgres_cannot_hold_is_refused(
    change: dict[str, object], database_url: str, database_schema: str
) -> None:
    world = played(11)
    tracked = next(iter(world.truth.runs.values()))
    bad: Tracked[RunState] = Tracked(replace(tracked.state, **change), tracked.head)
    async with migrated(database_url, database_schema) as database:
        await load_partition(database, 0, 1)
        with pytest.raises(UnstorableError):
            await ProjectionStore(database).apply(Changes(0, 1, 0, 5, runs={"bad": Changed(bad, None)}))
        assert (await load_partition(database, 0, 1)).after == 0


async def test_what_is_parked_is_shown_also_with_what_postgres_cannot_hold(
    database_url: str, database_schema: str
) -> None:
    async with migrated(database_url, database_schema) as database:
        store = ProjectionStore(database)
        fold = await load_partition(database, 0, 1)
        fold.park(3, "a.b", "run/x", "cannot be read: \0")
        await store.apply(fold.take_changes())
        async with database.snapshot() as transaction:
            (parked,) = await list_parked(transaction)
        assert (parked.position.sequence, parked.reason) == (3, "cannot be read: \ufffd")
        await store.apply(Changes(0, 1, 3, 3), unparked=(3,))
        async with database.snapshot() as transaction:
            assert await list_parked(transaction) == ()
