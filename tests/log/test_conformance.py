"""What every log does, in memory or on JetStream."""

from __future__ import annotations

import asyncio
import random

import pytest
from msgspec.structs import replace

from runstream.commits import Head, NewCommit, Position
from runstream.errors import BadRequestError, InternalError
from runstream.events.run import RunNumbered
from runstream.log.port import AppendConflictError, Log, LogMovedError, decide_and_append
from tests.log.commits import NOW, after, assigned, created, numbered, run_address, stop_requested, task_address
from tests.log.conftest import OpenLog


async def test_a_commit_is_appended_and_read_back(new_log: OpenLog) -> None:
    async with new_log() as log:
        commit = replace(created(run_address(1)), trace="00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01")
        position = await log.append(commit)
        assert position == Position(log.epoch, 1, 1)
        stored = await log.last(commit.address)
        assert stored is not None
        assert stored.position == position
        assert (stored.commit.id, stored.commit.events, stored.commit.trace) == (commit.id, commit.events, commit.trace)
        assert await log.history(commit.address) == [stored]
        assert [await log.end(0), await log.end(1)] == [0, 1]


async def test_what_was_never_appended_is_not_there(new_log: OpenLog) -> None:
    async with new_log() as log:
        assert await log.last(run_address()) is None
        assert await log.history(run_address()) == []


async def test_a_stale_decision_is_refused_with_the_last_commit(new_log: OpenLog) -> None:
    async with new_log() as log:
        first = created(run_address())
        position = await log.append(first)
        winner = after(first, position.sequence)
        await log.append(winner)
        with pytest.raises(AppendConflictError) as caught:
            await log.append(numbered(first, position.sequence, 1))
        assert caught.value.last is not None
        assert caught.value.last.commit.id == winner.id
        assert len(await log.history(first.address)) == 2


async def test_a_second_first_commit_is_refused(new_log: OpenLog) -> None:
    async with new_log() as log:
        first = created(run_address())
        await log.append(first)
        with pytest.raises(AppendConflictError):
            await log.append(created(first.address))


async def test_the_same_commit_again_is_the_same_success(new_log: OpenLog) -> None:
    async with new_log() as log:
        first = created(run_address(), cause="why")
        position = await log.append(first)
        assert await log.append(created(first.address, cause="why")) == position
        assert await log.append_all([first, first]) == [position, position]
        assert await log.end(0) == 1


async def test_the_same_commit_again_is_a_success_when_others_came_after_it(new_log: OpenLog) -> None:
    async with new_log() as log:
        first = created(run_address())
        position = await log.append(first)
        second = after(first, position.sequence)
        later = await log.append(second)
        await log.append(numbered(second, later.sequence, 1))
        assert await log.append(first) == position
        assert await log.append(second) == later


async def test_a_task_is_assigned_once_across_executors(new_log: OpenLog) -> None:
    async with new_log() as log:
        one, other = assigned(task_address("ex1", "t1")), assigned(task_address("ex2", "t1"))
        position = await log.append(one)
        with pytest.raises(AppendConflictError) as caught:
            await log.append(other)
        assert caught.value.last is not None
        assert caught.value.last.commit.address.executor_id == "ex1"
        await log.append(stop_requested(one, position.sequence))
        assert len(await log.history(other.address)) == 2


async def test_many_commits_each_get_their_answer_in_order(new_log: OpenLog) -> None:
    async with new_log() as log:
        taken = created(run_address(0))
        await log.append(taken)
        commits = [created(run_address(n % 2)) for n in range(300)]
        commits[7] = created(taken.address)
        answers = await log.append_all(commits)
        assert isinstance(answers[7], AppendConflictError)
        places = [a for a in answers if isinstance(a, Position)]
        assert len(set(places)) == 299
        for commit, place in zip(commits[8:20], answers[8:20], strict=True):
            stored = await log.last(commit.address)
            assert stored is not None
            assert stored.position == place
            assert stored.commit.id == commit.id


async def test_commits_of_one_aggregate_given_at_once_stay_in_order(new_log: OpenLog) -> None:
    async with new_log() as log:
        first = created(run_address())
        others = [created(run_address()) for _ in range(10)]
        answers = await log.append_all([first, after(first, 1), *others])
        assert isinstance(answers[0], Position)
        assert isinstance(answers[1], Position) == (answers[0].sequence == 1)


async def test_of_concurrent_writers_exactly_one_wins_each_version(new_log: OpenLog) -> None:
    async with new_log() as log:
        address = run_address()
        await log.append(created(address))

        async def load(_: Position | None) -> tuple[int, Head]:
            last = await log.last(address)
            assert last is not None
            return last.commit.version, Head(last.commit.version, last.position.sequence)

        def decide(version: int, head: Head) -> NewCommit:
            return head.next_commit(address, [RunNumbered(version, version)], time=NOW, actor="a")

        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(decide_and_append(log, load, decide, attempts=50)) for _ in range(10)]
        versions = sorted(w.result().commit.version for w in writers if (w.result()) is not None)  # type: ignore[union-attr]
        assert versions == list(range(2, 12))
        history = await log.history(address)
        assert [stored.commit.version for stored in history] == list(range(1, 12))


async def test_a_decision_that_always_loses_ends(new_log: OpenLog) -> None:
    async with new_log() as log:
        first = created(run_address())
        await log.append(first)
        asked: list[Position | None] = []

        async def load(at_least: Position | None) -> tuple[None, Head]:
            asked.append(at_least)
            return None, Head()

        with pytest.raises(AppendConflictError):
            await decide_and_append(log, load, lambda _, __: created(first.address), attempts=3)
        assert asked == [None, Position(log.epoch, 0, 1), Position(log.epoch, 0, 1)]
        assert await decide_and_append(log, load, lambda _, __: None) is None


async def test_a_reader_reads_on_from_a_position(new_log: OpenLog) -> None:
    async with new_log() as log:
        commits = [created(run_address()) for _ in range(2500)]
        await log.append_all(commits)
        async with log.read(0, 0) as reader:
            seen = [m for _ in range(3) for m in await reader.next_batch(100)]
            assert reader.pending() == 2500 - len(seen)
        async with log.read(0, len(seen)) as reader:
            while len(seen) < 2500:
                seen += await reader.next_batch()
            assert reader.pending() == 0
        assert [m.position.sequence for m in seen] == list(range(1, 2501))
        assert {m.headers["Nats-Msg-Id"] for m in seen} == {c.id for c in commits}


async def test_a_reader_that_does_not_wait_returns_what_is_left_then_nothing(new_log: OpenLog) -> None:
    async with new_log() as log:
        wanted, other = (created(run_address()) for _ in range(2))
        await log.append_all([wanted, other, created(run_address())])
        for filters, count in (((), 3), ([log.subjects.of(wanted.address)], 1)):
            async with log.read(0, 0, filters=filters) as reader:
                seen = []
                while batch := await reader.next_batch(2, wait=False):
                    seen += batch
                assert len(seen) == count
                assert await reader.next_batch(2, wait=False) == []


async def test_a_waiting_reader_wakes_with_the_first_commit(new_log: OpenLog) -> None:
    async with new_log() as log, log.read(0, 0) as reader:
        waiting = asyncio.create_task(reader.next_batch())
        commit = created(run_address())
        await log.append(commit)
        (message,) = await waiting
        assert message.subject == log.subjects.of(commit.address)


async def test_a_reader_sees_what_it_filters_for(new_log: OpenLog) -> None:
    async with new_log() as log:
        mine, theirs = task_address("ex1", "t1"), task_address("ex2", "t2")
        await log.append_all([created(run_address()), assigned(theirs), assigned(mine), created(run_address())])
        async with log.read(0, 0, filters=(log.subjects.tasks_of(0, "ex1"),)) as reader:
            (message,) = await reader.next_batch()
            assert message.subject == log.subjects.of(mine)
        async with log.read(0, 0, filters=(f"{log.subjects.prefix(0)}.run.>", log.subjects.of(mine))) as reader:
            batch: list[object] = []
            while len(batch) < 3:
                batch += await reader.next_batch()
            assert len(batch) == 3


async def test_a_reader_of_several_aggregates_sees_each_of_their_commits_once_from_where_it_begins(
    new_log: OpenLog,
) -> None:
    async with new_log() as log:
        runs = [created(run_address()) for _ in range(5)]
        tasks = [assigned(task_address("ex1", f"t{number}")) for number in range(2)]
        filters = [log.subjects.of(runs[1].address), log.subjects.of(runs[2].address)]
        filters += [log.subjects.guard(task.address) for task in tasks]
        positions = [await log.append(commit) for commit in (*runs[:3], tasks[0])]
        for begin, before in ((0, [1, 2, 3]), (positions[1].sequence, [2, 3]), (positions[3].sequence, [])):
            async with log.read(0, begin, filters=filters) as reader:
                seen = []
                while batch := await reader.next_batch(1, wait=False):
                    seen += batch
                assert [one.position for one in seen] == [positions[number] for number in before]
        async with log.read(0, positions[1].sequence, filters=filters) as reader:
            later = await log.append(tasks[1])
            await log.append(runs[3])
            last = await log.append(numbered(runs[1], positions[1].sequence, 7))
            seen = []
            while len(seen) < 4:
                seen += await reader.next_batch()
            assert [one.position for one in seen] == [*positions[2:4], later, last]


async def test_the_messages_on_some_subjects_are_read_in_the_order_of_the_log(
    new_log: OpenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.jetstream.direct._BATCH", 2)
    monkeypatch.setattr("runstream.jetstream.direct._SUBJECTS", 2)
    async with new_log() as log:
        run, tasks = (
            created(run_address()),
            [assigned(task_address(f"ex{number}", f"t{number}")) for number in range(5)],
        )
        position = await log.append(run)
        last = run
        for number in range(4):
            last = numbered(last, position.sequence, number + 1)
            position = await log.append(last)
        await log.append_all(tasks)
        everything = [run.address, *(task.address for task in tasks)]

        async def read(*subjects: str) -> list[int]:
            return [message.position.sequence for message in await log.messages(0, subjects)]

        guards = [log.subjects.guard(address) for address in everything]
        assert await read(*reversed(guards)) == [*range(1, 11)]
        assert await read(guards[0]) == [1, 2, 3, 4, 5]
        assert await read(guards[3], guards[1], guards[3]) == [6, 8]
        assert await read(f"{log.subjects.prefix(0)}.task.>", log.subjects.of(tasks[0].address)) == [6, 7, 8, 9, 10]
        assert await read(log.subjects.skips(0), log.subjects.of(run_address())) == []
        (message,) = await log.messages(0, [guards[1]])
        async with log.read(0, 5) as reader:
            assert (await reader.next_batch(1))[0] == message


async def test_a_position_ahead_of_the_log_is_an_error(new_log: OpenLog) -> None:
    async with new_log() as log:
        await log.append(created(run_address()))
        with pytest.raises(InternalError, match="position 2 is ahead of partition 0, which ends at 1"):
            async with log.read(0, 2):
                pytest.fail("it was opened")


async def test_a_commit_that_is_too_large_is_refused_before_anything_is_sent(new_log: OpenLog) -> None:
    async with new_log() as log:
        huge = created(run_address(), name=random.Random(1).randbytes(16 << 20).hex())  # noqa: S311
        with pytest.raises(BadRequestError) as caught:
            await log.append_all([created(run_address()), huge])
        assert caught.value.code == "commitTooLarge"
        assert await log.end(0) == 0


async def test_a_cancelled_append_does_not_affect_other_appends(new_log: OpenLog) -> None:
    async with new_log() as log:
        given_up = [asyncio.create_task(log.append(created(run_address()))) for _ in range(20)]
        kept = [asyncio.create_task(log.append(created(run_address()))) for _ in range(20)]
        await asyncio.sleep(0)  # the loop comes back when each of them has begun
        for task in given_up:
            task.cancel()
        positions = await asyncio.gather(*kept)
        assert len(set(positions)) == 20
        await _drained(log)


async def _drained(log: Log) -> None:
    commit = created(run_address())
    await log.append(commit)
    assert len(await log.history(commit.address)) == 1


async def test_a_batch_is_appended_as_a_whole_where_the_partition_ends(new_log: OpenLog) -> None:
    async with new_log() as log:
        commits = [created(run_address(1)) for _ in range(3)]
        assert await log.append_batch(commits[:1], 0) == [Position(log.epoch, 1, 1)]
        assert await log.append_batch(commits[1:], 1) == [Position(log.epoch, 1, 2), Position(log.epoch, 1, 3)]
        assert await log.end(1) == 3
        assert [one.commit.id for one in await log.history(commits[2].address)] == [commits[2].id]


@pytest.mark.parametrize("count", [1, 2, 10])
async def test_a_batch_that_expects_an_earlier_end_is_refused_as_a_whole(new_log: OpenLog, count: int) -> None:
    async with new_log() as log:
        first = created(run_address())
        await log.append_batch([first], 0)
        with pytest.raises(LogMovedError) as caught:
            await log.append_batch([created(run_address()) for _ in range(count)], 0)
        assert caught.value.following == 1
        assert await log.end(0) == 1


@pytest.mark.parametrize("count", [1, 2, 10])
async def test_the_same_batch_again_is_the_same_success(new_log: OpenLog, count: int) -> None:
    async with new_log() as log:
        await log.append(created(run_address()))
        batch = [created(run_address()) for _ in range(count)]
        positions = await log.append_batch(batch, 1)
        await log.append(created(run_address()))
        assert await log.append_batch(batch, 1) == positions
        assert await log.end(0) == count + 2


async def test_of_batches_that_expect_the_same_end_one_is_appended(new_log: OpenLog) -> None:
    async with new_log() as log:
        batches = [[created(run_address()) for _ in range(2)] for _ in range(8)]
        answers = await asyncio.gather(*(log.append_batch(one, 0) for one in batches), return_exceptions=True)
        assert sum(isinstance(answer, LogMovedError) for answer in answers) == 7
        assert await log.end(0) == 2
