from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from runstream.commits import Head, NewCommit, Position
from runstream.database import Database
from runstream.database.run_lists import RunQuery, list_runs
from runstream.database.runs import get_positions, get_run, get_run_by_counter, get_run_config, list_executors
from runstream.domain.run import RunState
from runstream.errors import BadRequestError, NotExistError
from runstream.events.executor import ExecutorDeleted, ExecutorRegistered
from runstream.projections.store import ProjectionStore, load_partition
from runstream.run_states import RunPhase
from runstream.subjects import Address
from tests.domain.test_world import play
from tests.domain.world import START, World, config, random_config, task
from tests.factories import executor_registered

from .playing import migrated, played, project

PREFIXES = (
    "/project/p",
    "/project/p/branch",
    "/project/p/branch/main",
    "/project/p/branch/mai",
    "/user/q",
    "/project/q",
)


def wide_world() -> World:
    """Runs in groups that are easily taken for one another."""
    world = played(4)
    for group in ("/project/p%/branch/main", "/project/p_/x", "/project/pp/branch/main", "/project/p/branch/main/x"):
        world.create(random_config(world.random), group)
    play(world, world.random, 60)
    return world


@asynccontextmanager
async def projected(url: str, schema: str, world: World) -> AsyncIterator[Database]:
    async with migrated(url, schema) as database:
        fold = await load_partition(database, 0, 1)
        await project(ProjectionStore(database), fold, world.log)
        yield database


def in_group(*groups: str) -> Callable[[RunState], bool]:
    return lambda run: any(run.group == group or run.group.startswith(group + "/") for group in groups)


async def test_a_run_is_read_with_its_tasks_and_their_steps(database_url: str, database_schema: str) -> None:
    world = wide_world()
    async with projected(database_url, database_schema, world) as database, database.snapshot() as transaction:
        for run_id, tracked in world.truth.runs.items():
            record = await get_run(transaction, run_id)
            assert (record.run, record.head, record.partition) == (tracked.state, tracked.head, 0)
            assert record.executor_tasks == {
                one.state.id: one.state for one in world.truth.executor_tasks.values() if one.state.run_id == run_id
            }
            group, counter = tracked.state.group, tracked.state.counter
            assert await get_run_by_counter(transaction, group, counter) == record
            content = await get_run_config(transaction, 0, record.run.run_config)
            assert content == world.truth.configs[record.run.run_config]
        assert await get_positions(transaction) == {0: Position(1, 0, len(world.log))}


async def test_missing_runs_and_configs_are_reported(database_url: str, database_schema: str) -> None:
    async with projected(database_url, database_schema, wide_world()) as database, database.snapshot() as transaction:
        for asked, code in (
            (get_run(transaction, "none"), "runDoesNotExist"),
            (get_run_by_counter(transaction, "/project/p/branch/mai", 1), "runDoesNotExist"),
            (get_run_config(transaction, 0, "none"), "runConfigDoesNotExist"),
            (get_run_config(transaction, 1, "c0"), "runConfigDoesNotExist"),
        ):
            with pytest.raises(NotExistError) as raised:
                await asked
            assert raised.value.code == code
        for limit in (0, 41, -1):
            with pytest.raises(BadRequestError):
                await list_runs(transaction, RunQuery(limit=limit))


async def test_a_summary_names_what_waits_for_approval(database_url: str, database_schema: str) -> None:
    world = World(played(0).random)
    run_id = world.create(config(task("b", needs_approval=True), task("a", needs_approval=True), task("c")))
    scheduler = world.schedulers[0]
    for _ in range(3):
        scheduler.catch_up()
        scheduler.plan()
        scheduler.append_runs()
        scheduler.append_rest()
    async with projected(database_url, database_schema, world) as database, database.snapshot() as transaction:
        (summary,) = (await list_runs(transaction, RunQuery())).runs
        run = world.run(run_id)
        assert summary.tasks_waiting_approval == ("a", "b")
        for name, waits in ((run.name, True), (run.name, False), ("", True)):
            assert (await list_runs(transaction, RunQuery(name=name, waiting_approval=waits))).runs == (summary,)
        assert (await list_runs(transaction, RunQuery(name=f"{run.name}x"))).runs == ()
        assert {name: getattr(summary, name) for name in ("id", "counter", "sequence", "phase", "annotations")} == {
            "id": run_id,
            "counter": 1,
            "sequence": run.sequence,
            "phase": RunPhase.RUNNING,
            "annotations": {},
        }


async def test_executors_are_listed_with_their_open_tasks(database_url: str, database_schema: str) -> None:
    world = played(6)
    registered = executor_registered(labels={"a": "b"})
    for name in ("e0", "e1", "gone"):
        assert world.append(_commit(world, name, registered))
    assert world.append(_commit(world, "gone", ExecutorDeleted()))
    async with projected(database_url, database_schema, world) as database, database.snapshot() as transaction:
        listed = await list_executors(transaction)
        assert [record.executor for record in listed] == [world.truth.executors[name].state for name in ("e0", "e1")]
        assert [record.open_tasks for record in listed] == [
            sum(one.state.open and one.state.executor_id == name for one in world.truth.executor_tasks.values())
            for name in ("e0", "e1")
        ]


def _commit(world: World, name: str, event: ExecutorRegistered | ExecutorDeleted) -> NewCommit:
    head = world.heads.get(f"executor/{name}", Head())
    return head.next_commit(Address(0, "executor", name), (event,), time=START, actor=f"executor:{name}")
