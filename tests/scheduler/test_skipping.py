"""A skipped commit is never applied: not live, and not by a later fold that could read it."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from sqlalchemy import select

from runstream import tables
from runstream.commits import Position
from runstream.database import Transaction
from runstream.datamanager.startup import reset_projection
from runstream.errors import ConflictError, NotExistError
from runstream.gateway.runs.actions import Actions
from runstream.ids import new_id
from runstream.log.port import RawMessage
from runstream.projections.as_of import RunsAsOf
from runstream.projections.fsck import fsck
from runstream.projections.parked import list_parked, list_skip_decisions, request_retry, skip_commit, skip_decision_of
from runstream.projections.rebuild import rebuild
from runstream.run_states import RunPhase
from runstream.subjects import Address
from runstream.upcasters import UPCASTERS
from tests.domain.world import config, task
from tests.servers import Servers

from .standing import FakeExecutor, Standing, running, standing
from .test_parking import phases, until

ONE = config(task("a"))
RUNS = select(tables.runs)
NOW = datetime(2026, 11, 23, tzinfo=UTC)
PONDERED = {"type": "RunPondered", "version": 1}
CANCELLED = {"type": "RunCancelled", "version": 2, "reason": "of the newer one"}


async def put(around: Standing, run: str, version: int, *events: dict[str, object], body: bytes = b"") -> Position:
    """A commit of a run as a newer Runstream would write it; or something else."""
    address = Address(around.runs[run], "run", run)
    content = {
        "id": new_id(),
        "aggregate": address.aggregate,
        "version": version,
        "time": "2026-01-01T00:00:00Z",
        "actor": "user:later",
        "cause": "",
        "events": events,
    }
    subject = around.log.subjects.of(address)
    ack = await around.nats.jetstream().publish(subject, body or orjson.dumps(content))
    return Position(1, address.partition, ack.seq)


async def skip(around: Standing, position: Position, reason: str = "of no use") -> Position:
    return await skip_commit(around.log, around.database, position, actor="user:ada", reason=reason, at=NOW)


async def clean(around: Standing) -> None:
    report = await fsck(around.database, around.log)
    assert report.lines()[:-1] == []


async def rows(around: Standing, run: str) -> tuple[int, int, str]:
    async with around.database.snapshot() as transaction:
        (found,) = [one for one in await transaction.rows(RUNS) if one["id"] == run]
    return found["version"], found["position"], found["phase"]


async def test_what_waited_behind_a_skipped_commit_is_applied_everywhere(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standing(servers) as around:
        run = await around.create(ONE)
        pondered = await put(around, run, 2, PONDERED)
        behind = await put(around, run, 3, CANCELLED)
        async with running(await around.scheduler()):
            await until(around.database, list_parked, lambda found: len(found) == 2)
            with pytest.raises(ConflictError, match=f"waits behind the one at {pondered}"):
                await skip(around, behind)
            with pytest.raises(NotExistError, match="is not parked"):
                await skip(around, Position(1, pondered.partition, 1))
            decided = await skip(around, pondered)
            assert await until(around.database, list_parked, lambda found: not found) == ()
            await until(around.database, phases, lambda found: found[run] == "cancelled")
            await until(around.database, archived, lambda found: run in found)
            await clean(around)
        ended = await rows(around, run)
        assert ended == (4, decided.sequence + 1, "cancelled")
        (told,) = await list_skip_decisions(around.log)
        assert (told.position, told.by, told.reason, told.skipped) == (decided, "user:ada", "of no use", str(pondered))
        assert told.version_after == 2

        # From now on it could be read; but it was decided.
        monkeypatch.setitem(UPCASTERS, ("RunPondered", 1), lambda _: [{"type": "RunStarted", "version": 1}])
        await clean(around)
        assert (await rebuild(servers.nats_url, around.log, around.database, lambda *_: None)).parked == 0
        assert await rows(around, run) == ended
        await reset_projection(around.database, "runs")
        async with running(await around.scheduler()):
            await until(around.database, archived, lambda found: run in found)
            await clean(around)
        assert await rows(around, run) == ended


async def test_the_run_goes_on_after_a_skipped_commit_as_if_it_had_said_nothing(servers: Servers) -> None:
    async with standing(servers) as around:
        run = await around.create(ONE)
        garbage = await put(around, run, 0, body=b"\xff moo")
        async with running(await around.scheduler()), FakeExecutor(around, "e1").alive():
            await until(around.database, list_parked, bool)
            assert (await rows(around, run))[0] == 1
            await skip(around, garbage)
            await until(around.database, phases, lambda found: found[run] == "finished")
            # Read before it: the commit is parked. Read after it: it says nothing, and is the second of its run.
            history = await around.log.history(Address(around.runs[run], "run", run))
            assert [stored.commit.version for stored in history] == [*range(1, len(history) + 1)]
            assert history[1].commit.events == ()
            await clean(around)
        before = await RunsAsOf(around.log).run(run, garbage)
        assert before.record.run.phase is RunPhase.QUEUED
        after = await RunsAsOf(around.log).run(run, Position(1, garbage.partition, history[-1].position.sequence))
        assert after.record.run.phase is RunPhase.FINISHED


async def test_readers_of_the_log_itself_pass_a_skipped_commit_too(servers: Servers) -> None:
    """A user's action rests on the run's history, not on the rows."""
    async with standing(servers) as around:
        run = await around.create(ONE)
        pondered = await put(around, run, 2, PONDERED)
        async with running(await around.scheduler()):
            await until(around.database, list_parked, bool)
            await skip(around, pondered)
            await until(around.database, list_parked, lambda found: not found)
            last = await around.log.last(Address(around.runs[run], "run", run))
            assert last is not None
            assert last.commit.version >= 2
            cancelled = await Actions(around.log, lambda: NOW).on_run(run, lambda _: ())
            assert cancelled is None
            (message,) = [
                one for one in await messages(around, pondered.partition) if one.position.sequence == pondered.sequence
            ]
            found = await skip_decision_of(around.log, message)
            assert found is not None
            assert found.by == "user:ada"


async def archived(transaction: Transaction) -> set[str]:
    return {one["id"] for one in await transaction.rows(RUNS) if one["archived"]}


async def messages(around: Standing, partition: int) -> list[RawMessage]:
    async with around.log.read(partition, 0) as reader:
        return await reader.next_batch(1000)


async def test_a_creation_that_is_skipped_leaves_no_run_and_the_rest_can_be_skipped_too(servers: Servers) -> None:
    async with standing(servers) as around:
        other = await around.create(ONE)
        around.runs[lost := new_id()] = around.runs[other]
        first = await put(around, lost, 1, PONDERED)
        second = await put(around, lost, 2, {"type": "RunStarted", "version": 1})
        async with running(await around.scheduler()):
            await until(around.database, list_parked, lambda found: len(found) == 2)
            await skip(around, first)
            (left,) = await until(around.database, list_parked, lambda found: len(found) == 1)
            assert left.position == second
            assert "does not begin with its creation" in left.reason
            await clean(around)
            await skip(around, second)
            await until(around.database, list_parked, lambda found: not found)
            await clean(around)
            assert lost not in await until(around.database, phases, bool)


async def test_a_commit_of_an_unknown_aggregate_can_be_skipped(servers: Servers) -> None:
    async with standing(servers) as around:
        ack = await around.nats.jetstream().publish(f"{servers.namespace}.runs.1.1.cow.moo", b"moo")
        run = await around.create(ONE)
        async with running(await around.scheduler()):
            (parked,) = await until(around.database, list_parked, bool)
            assert parked.position == Position(1, 1, ack.seq)
            await skip(around, parked.position)
            await until(around.database, list_parked, lambda found: not found)
            await until(around.database, phases, lambda found: run in found)
            await clean(around)
        await rebuild(servers.nats_url, around.log, around.database, lambda *_: None)
        await clean(around)


async def test_a_retry_does_not_apply_what_was_decided_a_moment_before(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision is in the log, the scheduler has not come to it, and by now the commit can be read."""
    async with standing(servers) as around:
        run = await around.create(ONE)
        pondered = await put(around, run, 2, PONDERED)
        async with running(await around.scheduler()):
            await until(around.database, list_parked, bool)
        decided = await skip(around, pondered)
        monkeypatch.setitem(UPCASTERS, ("RunPondered", 1), lambda _: [CANCELLED])
        async with running(await around.scheduler()):
            await request_retry(around.database)
            await until(around.database, list_parked, lambda found: not found)
            await until(around.database, phases, lambda found: found[run] == "running")
            await clean(around)
        assert decided.sequence > pondered.sequence
        assert (await rows(around, run))[2] == "running"
