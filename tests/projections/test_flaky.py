"""Flaky tasks: failed, then passed with the same commit and run config, in a later attempt or a later run."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import select, text

from runstream import tables
from runstream.database import Database, Transaction
from runstream.database.flaky import list_flaky
from runstream.database.migrating import migrate, migrate_down
from runstream.domain.run import RunState, RunTask, RunTaskStatus
from runstream.subjects import group_root
from tests.domain.test_world import play
from tests.domain.world import World

from .playing import played
from .test_runs import projected

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def restless(seed: int) -> World:
    """A world in which many runs are restarted."""
    world = played(seed, 150, settled=True)
    for _ in range(3):
        for run_id in sorted(world.truth.runs):
            world.restart(run_id)
        play(world, world.random, 30)
        world.settle()
    return world


def failed(task: RunTask) -> bool:
    reasons = [attempt.reason for attempt in task.attempts] + [task.failure]
    return not task.kept and any(reason not in ("", "lost") for reason in reasons)


def flaky(world: World, *, commits: bool) -> Counter[tuple[str, str, str]]:
    """Return how often each task is flaky, from all runs; `commits`: whether all runs have the same commit."""
    runs = [one.state for one in world.truth.runs.values() if one.state.deleted_at is None]
    found: Counter[tuple[str, str, str]] = Counter()
    for run in runs:
        for task in run.tasks.values():
            later = (other for other in runs if commits and _repeats(other, run))
            if failed(task) and (_passed(task) or any(_passed(other.tasks[task.name]) for other in later)):
                found[group_root(run.group), run.name, task.name] += 1
    return found


def _repeats(other: RunState, run: RunState) -> bool:
    same = (other.run_config, group_root(other.group)) == (run.run_config, group_root(run.group))
    return same and other.sequence > run.sequence


def _passed(task: RunTask) -> bool:
    return task.status is RunTaskStatus.SUCCESS and not task.kept


async def give_commits(transaction: Transaction) -> None:
    """Give all runs the same commit, but one that repeats none."""
    notes = f'{{"commit_sha": "{COMMIT}"}}'
    await transaction.execute(text("UPDATE runs SET annotations = CAST(:notes AS json)"), {"notes": notes})
    await transaction.execute(text("UPDATE task_failures SET commit_sha = :commit"), {"commit": COMMIT})


@pytest.mark.parametrize("seed", [1, 2])
async def test_flaky_tasks_are_those_of_all_runs_that_failed_and_then_passed(
    seed: int, database_url: str, database_schema: str
) -> None:
    world = restless(seed)
    async with projected(database_url, database_schema, world) as database:
        for commits in (False, True):
            if commits:
                await database.transaction(give_commits)
            wanted = flaky(world, commits=commits)
            async with database.snapshot() as transaction:
                listed = await list_flaky(transaction)
                assert {(one.group, one.name, one.task): one.count for one in listed.tasks} == wanted
                assert [one.count for one in listed.tasks] == sorted(wanted.values(), reverse=True)
                for one in listed.tasks:
                    for seen in one.latest:
                        assert seen.passed == seen.failed or seen.passed.id != seen.failed.id
                of_q = await list_flaky(transaction, ["/user/q"])
                assert {one.group for one in of_q.tasks} == {group for group, *_ in wanted if group == "/user/q"}
                assert (await list_flaky(transaction, ["/project/none"])).tasks == ()
        assert wanted


async def test_a_migration_finds_the_failures_of_existing_runs(database_url: str, database_schema: str) -> None:
    async def rows(database: Database) -> list[dict[str, object]]:
        order = (tables.task_failures.c.run_id, tables.task_failures.c.task)
        async with database.snapshot() as transaction:
            return [dict(row) for row in await transaction.rows(select(tables.task_failures).order_by(*order))]

    async with projected(database_url, database_schema, restless(3)) as database:
        before = await rows(database)
        assert len({row["failures"] for row in before}) > 1
        await migrate_down(database_url, database_schema, "0014")
        await migrate(database_url, database_schema)
        assert await rows(database) == before
