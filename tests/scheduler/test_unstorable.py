"""A commit that Postgres cannot store is found, parked, and applied once it can be stored."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from typing import TypeAlias

import asyncpg
import pytest

from runstream.commits import Position
from runstream.database.freshness import retry_channel_of
from runstream.events.run import RunTaskAnnotated
from runstream.log.port import AppendConflictError
from runstream.log.runs import head_of
from runstream.projections.fsck import fsck
from runstream.projections.parked import ParkedCommit, list_parked, parked_lock, request_retry
from runstream.scheduler.intake import Unstorable
from runstream.subjects import Address
from tests.domain.world import START, config, task
from tests.servers import Servers

from .standing import FakeExecutor, Standing, running, standing
from .test_parking import phases, until
from .test_skipping import CANCELLED, PONDERED, put, skip

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ONE = config(task("a"))
REFUSE = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW."group" LIKE '%{0}' OR NEW.reason LIKE '%{0}' THEN
        RAISE EXCEPTION 'no row of %', NEW."group" USING ERRCODE = '22023';
    END IF; RETURN NEW; END $$;
CREATE OR REPLACE TRIGGER refuse BEFORE INSERT OR UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION refuse();
"""


def test_the_commit_that_is_refused_alone_is_to_blame() -> None:
    known = Unstorable()
    assert known.blame(500, "too long")
    assert (known.careful_until, known.reasons) == (500, {})
    assert known.blame(17, "too long")
    assert known.reasons == {17: "too long"}
    assert known.blame(40, "NUL")
    assert known.reasons == {17: "too long", 40: "NUL"}
    assert not known.blame(40, "NUL"), "a refusal without it is none of its own"


def test_a_parked_commit_that_is_tried_again_is_to_blame_and_not_what_was_taken_last() -> None:
    known = Unstorable({17: "too long"}, careful_until=500, untried={17, 18})
    known.try_again([17])
    assert (known.reasons, known.untried) == ({}, {18})
    assert known.blame(900, "still too long")
    assert (known.reasons, known.untried, known.careful_until) == ({17: "still too long"}, {18}, 500)
    known.try_again([18])
    known.tried()
    assert known.blame(900, "another one")
    assert known.careful_until == 900


def test_of_several_that_are_tried_at_once_each_is_tried_alone_next() -> None:
    known = Unstorable(careful_until=900)
    known.try_again((17, 18))
    assert known.blame(900, "too long")
    assert (set(known.reasons), known.untried) == ({17, 18}, {17, 18})
    known.trying = (17, 18)
    assert known.blame(900, "something else")
    assert known.reasons[900] == "something else"


def of_runs(parked: tuple[ParkedCommit, ...]) -> set[str]:
    return {one.aggregate for one in parked if one.aggregate.startswith("run/")}


@pytest.mark.seconds(20)
async def test_what_was_refused_is_applied_after_a_retry_once_it_can_be_stored(servers: Servers) -> None:
    async with standing(servers) as around:
        connection = await around.database.connect()
        try:
            await connection.execute(REFUSE.format("bad"))
            first, second = [await around.create(ONE, f"/project/p/branch/{n}bad") for n in (1, 2)]
            refused = {f"run/{first}", f"run/{second}"}
            # One executor for both schedulers: what is tried again is decided before it is refused, so a task of the
            # refused run may be on its way to the executor when the first scheduler ends.
            async with FakeExecutor(around, "e1").alive():
                async with running(await around.scheduler()):
                    await until(around.database, list_parked, lambda found: of_runs(found) == refused)
                    await connection.execute(REFUSE.format("2bad"))
                    await request_retry(around.database)
                    await until(around.database, phases, lambda found: found.get(first) == "finished")
                    parked = await until(
                        around.database, list_parked, lambda found: of_runs(found) == {f"run/{second}"}
                    )
                    assert "2bad" in next(one.reason for one in parked if of_runs((one,)))
                    await request_retry(around.database)  # in vain, and nothing else is parked for it
                    other = await around.create(ONE, "/project/p/branch/good")
                    await until(around.database, phases, lambda found: found.get(other) == "finished")
                    assert of_runs(await until(around.database, list_parked, bool)) == {f"run/{second}"}
                # A scheduler that begins knows of no refusal: it learns by trying.
                async with running(await around.scheduler()):
                    await request_retry(around.database)
                    another = await around.create(ONE, "/project/p/branch/good")
                    await until(around.database, phases, lambda found: found.get(another) == "finished")
                    assert of_runs(await until(around.database, list_parked, bool)) == {f"run/{second}"}
                    await connection.execute("DROP TRIGGER refuse ON runs")
                    await request_retry(around.database)
                    await until(around.database, phases, lambda found: found.get(second) == "finished")
                    assert await until(around.database, list_parked, lambda found: not found) == ()
            assert (await fsck(around.database, around.log)).lines()[:-1] == []
        finally:
            await connection.close()


GATE = 77
"""The advisory lock that the trigger of a slow refusal waits for."""
SLOWLY = REFUSE.replace("BEGIN IF", f"BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); IF")
LISTENERS = "SELECT count(*) FROM pg_stat_activity WHERE query = $1"
LOADERS = """
SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
WHERE relname = 'parked' AND relnamespace = $1::regnamespace AND NOT granted
"""
WAITERS = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND NOT granted AND (classid::bigint << 32) | objid::bigint = $1
"""


async def annotated(around: Standing, run: str) -> Position:
    """Append a commit to the run, behind those that the scheduler decides meanwhile."""
    address = Address(around.runs[run], "run", run)
    while True:
        head = head_of(await around.log.history(address))
        event = RunTaskAnnotated("a", {"late": "yes"})
        with contextlib.suppress(AppendConflictError):
            return await around.log.append(head.next_commit(address, (event,), time=START, actor="user:ada"))


async def seen(connection: Connection, count: str, value: object) -> None:
    """Wait until the query counts something."""
    while not await connection.fetchval(count, value):
        continue


@pytest.mark.seconds(20)
async def test_a_commit_that_was_parked_during_a_retry_is_applied_with_what_it_waits_for(servers: Servers) -> None:
    async with standing(servers) as around, AsyncExitStack() as stack:
        connection, holder = await around.database.connect(), await around.database.connect()
        stack.push_async_callback(connection.close)
        stack.push_async_callback(holder.close)
        await connection.execute(REFUSE.format("bad"))
        first, second = [await around.create(ONE, f"/project/p/branch/{n}bad") for n in (1, 2)]
        both, partition = {f"run/{first}", f"run/{second}"}, around.runs[first]
        async with running(await around.scheduler()):
            await until(around.database, list_parked, lambda found: of_runs(found) == both)
            await holder.execute("SELECT pg_advisory_lock($1)", GATE)
            await connection.execute(SLOWLY.format("2bad"))
            await request_retry(around.database)
            await seen(connection, WAITERS, GATE)  # both are tried together, under the lock on what is parked
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(holder.execute("SELECT pg_advisory_unlock($1)", GATE))
                async with parked_lock(around.database, partition):  # before they are tried one by one
                    late = await annotated(around, first)
                    await until(around.database, list_parked, lambda found: late in {one.position for one in found})
            found = await until(around.database, list_parked, lambda found: of_runs(found) == {f"run/{second}"})
            assert late not in {one.position for one in found}


@pytest.mark.seconds(20)
async def test_a_retry_that_is_requested_while_the_partition_is_loaded_is_done(servers: Servers) -> None:
    async with standing(servers) as around, AsyncExitStack() as stack:
        connection, holder = await around.database.connect(), await around.database.connect()
        stack.push_async_callback(connection.close)
        stack.push_async_callback(holder.close)
        await connection.execute(REFUSE.format("bad"))
        run = await around.create(ONE, "/project/p/branch/bad")
        async with running(await around.scheduler()):
            await until(around.database, list_parked, lambda found: of_runs(found) == {f"run/{run}"})
        await connection.execute("DROP TRIGGER refuse ON runs")
        loading = holder.transaction()
        await loading.start()
        await holder.execute("LOCK TABLE parked IN ACCESS EXCLUSIVE MODE")
        async with running(await around.scheduler()):
            channel = retry_channel_of(around.database.schema)
            await seen(connection, LISTENERS, f'LISTEN "{channel}"')
            await seen(connection, LOADERS, around.database.schema)
            await connection.execute("SELECT pg_notify($1, $2)", channel, str(around.runs[run]))
            await loading.commit()
            assert await until(around.database, list_parked, lambda found: not found) == ()
            assert run in await until(around.database, phases, bool)


async def test_a_commit_behind_a_skipped_one_that_cannot_be_stored_is_parked_itself(servers: Servers) -> None:
    async with standing(servers) as around:
        connection = await around.database.connect()
        try:
            await connection.execute(REFUSE.format("bad"))
            run = await around.create(ONE)
            pondered = await put(around, run, 2, PONDERED)
            behind = await put(around, run, 3, {**CANCELLED, "reason": "bad"})
            async with running(await around.scheduler()), FakeExecutor(around, "e1").alive():
                await until(around.database, list_parked, lambda found: len(found) == 2)
                await skip(around, pondered)
                parked = await until(
                    around.database, list_parked, lambda found: bool(found) and found[0].position == behind
                )
                assert "no row of" in parked[0].reason
                other = await around.create(ONE, "/project/p/branch/dev")
                await until(around.database, phases, lambda found: found.get(other) == "finished")
                await connection.execute("DROP TRIGGER refuse ON runs")
                await request_retry(around.database)
                await until(around.database, phases, lambda found: found.get(run) == "cancelled")
                assert await until(around.database, list_parked, lambda found: not found) == ()
            assert (await fsck(around.database, around.log)).lines()[:-1] == []
        finally:
            await connection.close()
