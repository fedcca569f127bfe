"""A commit that Postgres cannot store is found, parked, and applied once it can be stored."""

from __future__ import annotations

import pytest

from runstream.projections.fsck import fsck
from runstream.projections.parked import ParkedCommit, list_parked, request_retry
from runstream.scheduler.intake import Unstorable
from tests.domain.world import config, task
from tests.servers import Servers

from .standing import FakeExecutor, running, standing
from .test_parking import phases, until
from .test_skipping import CANCELLED, PONDERED, put, skip

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
