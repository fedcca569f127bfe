from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runstream.commits import LogPosition, Position, parse_point
from runstream.errors import BadRequestError, NotExistError
from runstream.log.jetstream import JetStreamLog
from runstream.projections.as_of import RunsAsOf, position_at
from runstream.projections.fold import PartitionFold
from runstream.run_states import RunPhase
from tests.scheduler.standing import FakeExecutor, running, standing
from tests.scheduler.test_parking import phases, until
from tests.scheduler.test_skipping import ONE
from tests.servers import Servers

from .playing import played
from .test_fsck import logged


@pytest.mark.parametrize("seed", range(6))
async def test_a_run_is_told_as_it_was_at_every_position(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.log.runs.require_uuid", lambda text, _: text)
    world = played(seed, 80, settled=True)
    past = RunsAsOf(await logged(world))
    fold = PartitionFold(0, 1)
    final = world.truth.runs
    for stored in world.log:
        fold.apply(stored)
        sequence = stored.position.sequence
        if sequence % 7:
            continue
        for run_id in final:
            if run_id not in fold.runs:
                with pytest.raises(NotExistError):
                    await past.run(run_id, LogPosition(1, (sequence,)))
                continue
            told = (await past.run(run_id, Position(1, 0, sequence))).record
            expected = fold.runs[run_id]
            assert told.run.phase is expected.state.phase
            assert told.run.tasks == expected.state.tasks
            assert told.head == expected.head
            assert told.run.counter == final[run_id].state.counter
            assert told.executor_tasks == {
                key: fold.executor_tasks[key].state
                for task in expected.state.tasks.values()
                for key in (task.executor_task_id, *task.executions)
                if key
            }


async def test_a_run_is_told_as_it_was_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.log.runs.require_uuid", lambda text, _: text)
    world = played(1, 80, settled=True)
    past = RunsAsOf(await logged(world))
    created = next(stored.commit for stored in world.log if stored.commit.address.aggregate == "run/r0")
    assert (await past.run("r0", created.time)).record.run.phase is RunPhase.QUEUED
    assert (await past.run("r0", datetime.now(UTC))).record.run == world.run("r0")
    with pytest.raises(NotExistError) as caught:
        await past.run("r0", created.time - timedelta(microseconds=1))
    assert "did not exist at 2026-" in caught.value.message


async def test_a_point_of_another_log_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.log.runs.require_uuid", lambda text, _: text)
    past = RunsAsOf(await logged(played(1, 20)))
    for point in (LogPosition(2, (1,)), LogPosition(1, (1, 1)), LogPosition(1, (100_000,)), Position(1, 1, 1)):
        with pytest.raises(BadRequestError):
            await past.run("r0", point)


async def test_a_run_is_read_without_a_reader_of_its_partition(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer with several filters scans the partition, which has the commits of all other runs."""
    async with standing(servers) as around:
        run = await around.create(ONE)
        async with running(await around.scheduler()), FakeExecutor(around, "e1").alive():
            await until(around.database, phases, lambda found: found.get(run) == "finished")
        monkeypatch.setattr(JetStreamLog, "read", None)
        past = RunsAsOf(around.log)
        read = await past.run(run, datetime.now(UTC))
        assert read.record.run.phase is RunPhase.FINISHED
        assert (await past.history(run)).count >= 6


async def test_a_time_is_a_position_of_each_partition() -> None:
    world = played(1, 80)
    log = await logged(world)
    log.put(0, "test.runs.1.0.run.broken", b"{")
    middle = world.log[len(world.log) // 2].commit.time
    expected = next(i for i, stored in enumerate(world.log) if stored.commit.time > middle)
    assert await position_at(log, middle) == LogPosition(1, (expected,))
    assert await position_at(log, datetime.now(UTC)) == LogPosition(1, (len(world.log) + 1,))
    assert await position_at(log, datetime(2000, 1, 1, tzinfo=UTC)) == LogPosition(1, (0,))


def test_points_are_read() -> None:
    assert parse_point("1:812,40") == parse_point("1:812,40\n") == LogPosition(1, (812, 40))
    assert parse_point("2/0/812") == parse_point("2/0/812\n") == Position(2, 0, 812)
    assert parse_point("2026-11-23T09:30:00+01:00") == datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
    for text in ("", "yesterday", "2026-11-23T09:30:00", "1/2", "0001-01-01T00:00:00+14:00"):
        with pytest.raises(BadRequestError):
            parse_point(text)
