"""An unreadable commit is parked with the later ones of its aggregate; all other aggregates go on."""

from __future__ import annotations

import orjson

from runstream.commits import NewCommit
from runstream.feed import Batch, PartitionFeed, classify, commits_of, read_again
from runstream.log.port import RawMessage
from runstream.projections.fold import Parked
from runstream.skips import Skips
from tests.log.commits import after, created, run_address
from tests.log.memory import MemoryLog


async def first_batch(log: MemoryLog, feed_parked: tuple[str, ...] = ()) -> Batch:
    async with log.read(0, 0) as reader:
        return PartitionFeed(reader, feed_parked).batch(await reader.next_batch())


def parked_of(batch: Batch) -> list[Parked]:
    return [item for item in batch.items if isinstance(item, Parked)]


def put_unreadable(log: MemoryLog, commit: NewCommit) -> None:
    body = {"events": [{"type": "RunEaten", "version": 1}], "aggregate": commit.address.aggregate}
    rest = {"id": "x", "version": 2, "time": "2026-01-01T00:00:00Z", "actor": "a", "cause": ""}
    log.put(0, log.subjects.of(commit.address), orjson.dumps(body | rest))


async def test_what_can_be_read_comes_in_order() -> None:
    log = MemoryLog()
    commits = [created(run_address()) for _ in range(3)]
    await log.append_all(commits)
    batch = await first_batch(log)
    assert [stored.commit.id for stored in batch.commits] == [commit.id for commit in commits]
    assert (parked_of(batch), batch.last, batch.pending) == ([], 3, 0)


async def test_an_unreadable_commit_parks_what_follows_it_and_nothing_else() -> None:
    log = MemoryLog()
    broken, fine = created(run_address()), created(run_address())
    await log.append(broken)
    put_unreadable(log, broken)
    await log.append(after(broken, 2))
    await log.append(fine)
    batch = await first_batch(log)
    assert [stored.commit.id for stored in batch.commits] == [broken.id, fine.id]
    assert [(parked.sequence, parked.aggregate) for parked in parked_of(batch)] == [
        (2, broken.address.aggregate),
        (3, broken.address.aggregate),
    ]
    assert "Unknown event type 'RunEaten'" in parked_of(batch)[0].reason
    assert parked_of(batch)[1].reason == f"an earlier commit of {broken.address.aggregate} is parked"
    assert batch.last == 4


async def test_a_foreign_message_is_parked_by_its_subject() -> None:
    log = MemoryLog()
    log.put(0, "memory.runs.1.0.cow", b"moo")
    await log.append(created(run_address()))
    batch = await first_batch(log)
    assert [parked.aggregate for parked in parked_of(batch)] == ["memory.runs.1.0.cow"]
    assert len(batch.commits) == 1


async def test_aggregates_parked_before_stay_parked_until_they_are_not() -> None:
    log = MemoryLog()
    first = created(run_address())
    await log.append(first)
    aggregate = first.address.aggregate
    assert [parked.aggregate for parked in parked_of(await first_batch(log, (aggregate,)))] == [aggregate]
    async with log.read(0, 0) as reader:
        feed = PartitionFeed(reader)
        assert len(feed.batch(await reader.next_batch()).commits) == 1
        feed.park(aggregate)
        assert feed.parked == {aggregate}
        await log.append(after(first, 1))
        assert feed.batch(await reader.next_batch()).commits == []
        feed.unpark({aggregate})
        await log.append(after(after(first, 1), 2))
        assert len(feed.batch(await reader.next_batch()).commits) == 1


async def test_what_was_parked_can_be_read_again() -> None:
    log = MemoryLog()
    await log.append_all([created(run_address()) for _ in range(5)])
    again: list[RawMessage] = await read_again(log, 0, {4, 2})
    assert [message.position.sequence for message in again] == [2, 4]
    items = classify(again, set(), Skips())
    assert len(items) == len(commits_of(items)) == 2
