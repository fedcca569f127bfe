"""A log with skipped commits folds as if they were absent, in every reader and in batches of any size."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace
from sqlalchemy import select, text

from runstream import tables
from runstream.commits import Head, NewCommit, Position
from runstream.database import Database
from runstream.events.skip import CommitSkipped
from runstream.feed import read_again
from runstream.projections.fsck import fsck
from runstream.skips import hash_of, version_after
from runstream.subjects import Address, skip_address
from tests.domain.world import START, World
from tests.factories import executor_registered
from tests.log.memory import MemoryLog

from .playing import migrated, played
from .test_fsck import again
from .test_rebuild_filling import filled


@pytest.fixture(autouse=True, params=[1, 2000])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.projections.rebuild_filling.PIECE_RUNS", request.param)
    monkeypatch.setattr("runstream.projections.fsck.BATCH", 20)


async def with_garbage(world: World, random: Random) -> tuple[MemoryLog, list[NewCommit]]:
    """The world's log with commits in between that cannot be read, and the decisions that these are skipped."""
    log = MemoryLog(partitions=1)
    heads: dict[str, Head] = {}
    decisions: list[NewCommit] = []
    for number, stored in enumerate(world.log):
        commit = again(stored, heads)
        address = commit.address
        if address.kind in ("run", "executor") and commit.version > 1 and random.random() < 0.3:
            place = log.put(0, log.subjects.of(address), b"moo %d" % number)
            commit = replace(commit, expected=place.sequence)
            decisions.append(await decision(log, place, commit.version - 1, commit.version))
        position = await log.append(commit)
        heads[address.aggregate] = Head(commit.version, position.sequence)
    return log, decisions


async def decision(log: MemoryLog, place: Position, before: int, following: int | None) -> NewCommit:
    (message,) = await read_again(log, 0, [place.sequence])
    event = CommitSkipped(hash_of(message), before, version_after(before, following), str(place), "garbage")
    return Head().next_commit(skip_address(0, message.subject), [event], time=START, actor="user:ada")


async def decide(log: MemoryLog, decisions: list[NewCommit]) -> None:
    """Append the decisions, each behind earlier ones about the same aggregate."""
    for one in decisions:
        history = await log.history(one.address)
        head = Head(history[-1].commit.version, history[-1].position.sequence) if history else Head()
        await log.append(head.next_commit(one.address, one.events, time=START, actor=one.actor))


async def rows(database: Database) -> list[dict[str, object]]:
    """The rows of all runs and their tasks, without where their last commits are."""
    async with database.snapshot() as transaction:
        runs = await transaction.rows(select(tables.runs).order_by(tables.runs.c.id))
        tasks = await transaction.rows(
            select(tables.run_tasks).order_by(tables.run_tasks.c.run_id, tables.run_tasks.c.name)
        )
    return [{k: v for k, v in row.items() if k != "position"} for row in (*runs, *tasks)]


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("seed", range(2))
async def test_it_is_as_if_they_had_not_been_there(
    seed: int, settled: bool, database_url: str, database_schema: str
) -> None:
    world = played(seed, settled=settled)
    log, decisions = await with_garbage(world, world.random)
    assert decisions
    async with migrated(database_url, f"{database_schema}") as database:
        half = len(world.log) // 2
        await filled(database, log, world.random, half)
        assert (await filled(database, log, world.random)).parked > len(decisions)
        assert (await fsck(database, log)).lines()[:-1] == []
        await decide(log, decisions)
        done = await filled(database, log, world.random)
        assert (done.parked, done.sequence) == (0, await log.end(0))
        assert (await fsck(database, log)).lines()[:-1] == []
        mine = await rows(database)
    other = f"{database_schema}_other"
    async with migrated(database_url, other) as database:
        await filled(database, log, world.random, log_before(log, decisions))
        assert (await fsck(database, log)).lines()[:-1] == []
        await filled(database, log, world.random)
        assert await rows(database) == mine
        plain = MemoryLog(partitions=1)
        heads: dict[str, Head] = {}
        for stored in world.log:
            await plain.append(again(stored, heads))
    async with migrated(database_url, f"{other}_2") as database:
        await filled(database, plain, world.random)
        assert await rows(database) == mine
        for schema in (other, f"{other}_2"):
            await drop(database, schema)


def log_before(log: MemoryLog, decisions: list[NewCommit]) -> int:
    """A position between some of the decisions."""
    return len(log.streams[0].messages) - len(decisions) // 2


async def drop(database: Database, schema: str) -> None:
    await database.transaction(lambda transaction: transaction.execute(text(f'DROP SCHEMA "{schema}" CASCADE')))


async def test_an_executor_begins_behind_a_registration_that_is_skipped(
    database_url: str, database_schema: str
) -> None:
    log = MemoryLog(partitions=1)
    address = Address(0, "executor", "e1")
    place = log.put(0, log.subjects.of(address), b"moo")
    registered = executor_registered()
    await decide(log, [await decision(log, place, 0, None)])
    last = await log.last(address)
    assert last is not None
    assert (last.commit.version, last.commit.events) == (1, ())
    await log.append(Head(1, 1).next_commit(address, [registered], time=START, actor="executor:e1"))
    again_garbage = log.put(0, log.subjects.of(address), b"moo again")
    await decide(log, [await decision(log, again_garbage, 2, None)])
    async with migrated(database_url, database_schema) as database:
        assert (await filled(database, log, Random(1))).parked == 0  # noqa: S311
        assert (await fsck(database, log)).lines()[:-1] == []
        async with database.snapshot() as transaction:
            row = await transaction.first(select(tables.executors))
        assert row is not None
        assert (row["version"], row["position"]) == (3, again_garbage.sequence)
