from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from runstream.commits import Head, NewCommit, StoredCommit
from runstream.database import Database, Transaction
from runstream.database.failures import UNSTORABLE, UnstorableError
from runstream.events.run import RunStarted
from runstream.projections.fsck import FsckFindings, fsck
from runstream.projections.store import ProjectionStore, load_partition
from runstream.subjects import Address
from tests.domain.world import START, World
from tests.factories import executor_registered, run_created
from tests.log.memory import MemoryLog

from .playing import batches, folded, migrated, played


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is final is compared and forgotten long before the end."""
    monkeypatch.setattr("runstream.projections.fsck.BATCH", 20)
    monkeypatch.setattr("runstream.projections.fsck.MAX_CONFIGS", 2)


async def logged(world: World) -> MemoryLog:
    """The world's log, with the same positions, as a log that can be read."""
    log = MemoryLog(partitions=1)
    heads: dict[str, Head] = {}
    for stored in world.log:
        position = await log.append(again(stored, heads))
        assert position == stored.position
    return log


def again(stored: StoredCommit, heads: dict[str, Head]) -> NewCommit:
    commit = stored.commit
    head = heads.get(commit.address.aggregate, Head())
    heads[commit.address.aggregate] = Head(commit.version, stored.position.sequence)
    return NewCommit(
        commit.id,
        commit.address,
        commit.version,
        commit.time,
        commit.actor,
        commit.cause,
        commit.events,
        head.sequence,
        commit.trace,
    )


@dataclass
class Projected:
    """A log, and a database that has it projected up to some position."""

    world: World
    log: MemoryLog
    database: Database

    async def project(self, up_to: int) -> None:
        fold = await load_partition(self.database, 0, 1)
        store = ProjectionStore(self.database)
        for commits in batches(self.world.log[:up_to], self.world.random):
            await store.apply(folded(fold, commits))

    async def change(self, statement: str) -> None:
        async def work(transaction: Transaction) -> int:
            return await transaction.execute(text(statement))

        assert await self.database.transaction(work) >= 1

    async def check(self) -> FsckFindings:
        return await fsck(self.database, self.log)

    async def only_difference(self) -> str:
        report = await self.check()
        assert report.exit_status == 1
        assert len(report.differences) == 1, report.lines()
        return report.lines()[0]


@asynccontextmanager
async def projected(url: str, schema: str, world: World, up_to: int | None = None) -> AsyncIterator[Projected]:
    world.append(
        Head().next_commit(
            Address(0, "executor", "e1"),
            (executor_registered(labels={"a": "b"}),),
            time=START,
            actor="executor:e1",
        )
    )
    async with migrated(url, schema) as database:
        held = Projected(world, await logged(world), database)
        await held.project(len(world.log) if up_to is None else up_to)
        yield held


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("seed", range(4))
async def test_a_projection_is_the_fold_of_the_log(
    seed: int, settled: bool, database_url: str, database_schema: str
) -> None:
    async with projected(database_url, database_schema, played(seed, settled=settled)) as held:
        report = await held.check()
        assert report.lines()[:-1] == []
        assert report.exit_status == 0
        assert report.commits == len(held.world.log)
        assert report.rows > len(held.world.truth.runs)


async def test_what_is_behind_the_checkpoint_is_not_looked_at(database_url: str, database_schema: str) -> None:
    async with projected(database_url, database_schema, played(1), up_to=30) as held:
        report = await held.check()
        assert (report.clean, report.commits) == (True, 30)


async def test_a_partition_that_was_never_projected_is_clean(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        assert (await fsck(database, MemoryLog())).lines() == ["0 commits, 0 rows: no difference"]


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE runs SET name = 'another' WHERE id = 'r0'", "runs[r0].name: the log says"),
        ("UPDATE runs SET version = version - 1 WHERE id = 'r0'", "runs[r0].version: the log says"),
        ("UPDATE runs SET position = position + 1 WHERE id = 'r0'", "runs[r0].position: the log says"),
        ("DELETE FROM run_tasks WHERE run_id = 'r0' AND name = 't0'", "run_tasks[r0, t0]: the log says a row, the"),
        (
            'INSERT INTO run_tasks SELECT (jsonb_populate_record(t, jsonb \'{"run_id": "r0", "name": "x"}\')).* '
            "FROM run_tasks AS t LIMIT 1",
            "run_tasks[r0, x]: the log says no row, the database a row",
        ),
        ("UPDATE run_tasks SET run_id = 'r-other' WHERE run_id = 'r0' AND name = 't0'", "run_tasks[r0, t0]: the log"),
        ("DELETE FROM task_failures", "task_failures["),
        ("UPDATE task_failures SET failures = failures + 1", "task_failures["),
        ("UPDATE counters SET last = last + 1", "counters[/project/p].last: the log says"),
        ("UPDATE run_configs SET content = '{}' WHERE hash = 'c0'", "run_configs[c0].content: the log says"),
        ("DELETE FROM executors", "executors[e1]: the log says a row, the database no row"),
        ("UPDATE executors SET state = 'lost'", "executors[e1].state: the log says 'registered', the database 'lost'"),
        ("UPDATE checkpoints SET run_sequence = 1", "checkpoints[0].run_sequence: the log says"),
        ("UPDATE checkpoints SET epoch = 2", "checkpoints[0].epoch: the log says 1, the database 2"),
        ("UPDATE checkpoints SET sequence = 100000", "checkpoints[0].sequence: the log says 'it ends at"),
        (
            "INSERT INTO parked VALUES ('runs', 0, 1, 3, 'subject', 'run/x', 'why')",
            "parked[1, 3]: the log says no row, the database a row",
        ),
    ],
)
async def test_a_changed_row_is_reported(
    statement: str, told: str, settled: bool, database_url: str, database_schema: str
) -> None:
    async with projected(database_url, database_schema, played(2, settled=settled)) as held:
        await held.change(statement)
        report = await held.check()
        assert report.exit_status == 1
        assert report.lines()[0].startswith(told), report.lines()


async def test_a_row_unknown_to_the_log_is_reported(database_url: str, database_schema: str) -> None:
    async with projected(database_url, database_schema, played(2)) as held:
        await held.change("UPDATE executor_tasks SET id = 'x' WHERE id = (SELECT min(id) FROM executor_tasks)")
        assert any("executor_tasks[x]: the log says no row" in line for line in (await held.check()).lines())
        await held.change("UPDATE runs SET id = 'x' WHERE id = 'r0'")
        assert "runs[x]: the log says no row, the database a row" in (await held.check()).lines()


async def test_a_stale_row_is_reported(database_url: str, database_schema: str) -> None:
    """A final row that is older than the log's last commit of it."""
    world = played(2, settled=True)
    async with projected(database_url, database_schema, world) as held:
        log = held.log
        late = world.truth.runs["r0"].head.next_commit(
            Address(0, "run", "r0"), (RunStarted(),), time=START, actor="alice"
        )
        await log.append(late)
        await held.change("UPDATE checkpoints SET sequence = sequence + 1")
        assert "runs[r0].version: the log says" in await held.only_difference()


async def test_commits_parked_in_the_log_are_parked_in_the_rows(database_url: str, database_schema: str) -> None:
    async with projected(database_url, database_schema, played(2)) as held:
        unfit = Head().next_commit(Address(0, "run", "r-unfit"), (RunStarted(),), time=START, actor="alice")
        position = await held.log.append(unfit)
        behind = Head(1, position.sequence).next_commit(unfit.address, (RunStarted(),), time=START, actor="alice")
        await held.log.append(behind)
        await held.change("UPDATE checkpoints SET sequence = sequence + 2")
        assert [line.split(":")[0] for line in (await held.check()).lines()[:-1]] == [
            f"parked[1, {position.sequence}]",
            f"parked[1, {position.sequence + 1}]",
        ]


async def test_parked_commits_are_compared_by_position_and_not_by_reason(
    database_url: str, database_schema: str
) -> None:
    async with projected(database_url, database_schema, played(2)) as held:
        unfit = Head().next_commit(Address(0, "run", "r-unfit"), (RunStarted(),), time=START, actor="alice")
        await held.log.append(unfit)
        fold = await load_partition(held.database, 0, 1)
        fold.park(fold.after + 1, held.log.subjects.of(unfit.address), "run/r-unfit", "said otherwise")
        await ProjectionStore(held.database).apply(fold.take_changes())
        assert (await held.check()).clean


async def test_what_postgres_could_not_hold_is_parked_for_fsck_too(database_url: str, database_schema: str) -> None:
    async with projected(database_url, database_schema, played(2)) as held:
        created = run_created("a\0b", run_config="c0")
        commit = Head().next_commit(Address(0, "run", "r-nul"), (created,), time=START, actor="alice")
        await held.log.append(commit)
        fold = await load_partition(held.database, 0, 1)
        refused = UnstorableError(f"{UNSTORABLE}: invalid byte sequence")
        fold.park(fold.after + 1, held.log.subjects.of(commit.address), "run/r-nul", str(refused))
        await ProjectionStore(held.database).apply(fold.take_changes())
        assert (await held.check()).lines()[:-1] == []
