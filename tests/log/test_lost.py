"""A stream that has lost messages: readers name each lost position, wait for none, and go on behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from runstream.commits import Position
from runstream.errors import BadRequestError, InternalError
from runstream.feed import EndLostError, PartitionFeed, read_again, read_up_to
from runstream.jetstream import pull
from runstream.jetstream.api import request as request_of_nats
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.log.port import AppendConflictError, RawMessage
from runstream.log.reader import MAX_LOST, end_of
from runstream.projections.fold import Parked
from runstream.skips import hash_of
from runstream.snapshots.segments import content_of, line_of, read_line
from tests.log.commits import after, created, run_address
from tests.log.losing import LosingStream, losing
from tests.log.servers import Connection, connected

LoseWhen = Callable[[LosingStream, Iterable[int]], Awaitable[None]]
MANY_SECONDS = 10
"""Far more than any of these readers takes; without an answer they would wait forever."""


async def filled(log: JetStreamLog, nc: Connection, lost: set[int], count: int = 5) -> None:
    async with losing(nc, log.subjects, 0) as stream:
        await log.append_all([created(run_address()) for _ in range(count)])
        await stream.lose(lost)


async def read_to(log: JetStreamLog, end: int, *, start: int = 0) -> list[RawMessage]:
    async with asyncio.timeout(MANY_SECONDS):
        return [one async for batch in read_up_to(log, 0, end, after=start, limit=2) for one in batch]


@pytest.mark.parametrize(
    ("lost", "end"), [({1}, 5), ({3}, 5), ({5}, 4), ({4, 5}, 3), ({1, 2, 4}, 5), ({2, 5}, 4), ({1, 2, 3, 4, 5}, 0)]
)
async def test_every_position_is_read_once_wherever_messages_are_lost(
    log: JetStreamLog, nc: Connection, lost: set[int], end: int
) -> None:
    await filled(log, nc, lost)
    assert await log.end(0) == end
    await log.append(created(run_address()))
    assert await log.end(0) == 6
    for start in (0, 2, 4):
        for until in (end, 6):
            messages = await read_to(log, until, start=start)
            assert [message.position.sequence for message in messages] == list(range(start + 1, until + 1))
            named = {m.position.sequence for m in messages if m.subject == log.subjects.lost(0, m.position.sequence)}
            assert named == {sequence for sequence in lost if start < sequence <= until}


@pytest.mark.parametrize(
    ("first", "last", "messages", "deleted", "end"),
    [
        (0, 0, 0, None, 0),
        (0, 0, 0, [0], 0),  # an empty stream after a full disk, as nats-server 2.15.1 describes it
        (2, 1, 0, None, 0),
        (1, 3, 3, None, 3),
        (1, 3, 1, [2, 3], 1),
        (1, 3, 2, [2], 3),
    ],
)
def test_a_stream_ends_with_its_last_message(
    first: int, last: int, messages: int, deleted: list[int] | None, end: int
) -> None:
    assert end_of({"first_seq": first, "last_seq": last, "messages": messages, "deleted": deleted}) == end


async def test_a_stream_that_lacks_all_its_messages_ends_at_0_until_it_gets_another(
    log: JetStreamLog, nc: Connection
) -> None:
    async with losing(nc, log.subjects, 0) as stream:
        await log.append(created(run_address()))
        await stream.lose_all_up_to(1)
    assert await log.end(0) == 0
    assert await log.append(created(run_address())) == Position(1, 0, 2)
    lost, _ = await read_to(log, 2)
    assert (lost.subject, lost.data) == (log.subjects.lost(0, 1), b"")


async def test_a_lost_commit_is_parked_and_says_which_position_is_gone(log: JetStreamLog, nc: Connection) -> None:
    await filled(log, nc, {4})
    async with asyncio.timeout(MANY_SECONDS), log.read(0, 3) as reader:
        feed = PartitionFeed(reader)
        (item,) = feed.batch(await reader.next_batch(1)).items
    assert isinstance(item, Parked)
    assert "position 1/0/4 is no longer in the log" in item.reason
    (again,) = await read_again(log, 0, [4])
    assert again.position == Position(1, 0, 4)


async def test_a_follower_at_a_lost_end_waits_and_names_it_with_the_next_commit(
    log: JetStreamLog, nc: Connection
) -> None:
    await filled(log, nc, {5})
    async with asyncio.timeout(MANY_SECONDS), log.read(0, 4) as reader:
        waiting = asyncio.ensure_future(reader.next_batch())
        await log.append(created(run_address()))
        seen = await waiting
    assert [message.position.sequence for message in seen] == [5, 6]


async def collect(seen: list[int], batches: AsyncIterator[list[RawMessage]]) -> None:
    async with asyncio.timeout(MANY_SECONDS):
        async for batch in batches:
            seen += [message.position.sequence for message in batch]


@pytest.fixture(params=["before a consumer counts them", "between counting and delivery"])
def lose_when(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LoseWhen:
    """Loses messages that a reader expects: it has asked for the end of the log already."""
    monkeypatch.setattr(pull, "_HEARTBEAT_SECONDS", 0.1)  # the server reports so soon that it is idle

    async def lose(stream: LosingStream, lost: Iterable[int]) -> None:
        if request.param == "before a consumer counts them":
            await stream.lose(lost)
            return
        left = set(lost)

        async def create_and_lose(*words: Any, **options: Any) -> Any:
            info = await request_of_nats(*words, **options)
            while left:
                await stream.lose([left.pop()])
            return info

        monkeypatch.setattr(pull, "request", create_and_lose)

    return lose


@pytest.mark.parametrize(
    ("lost", "start", "gone"),
    [({5}, 0, (5, 5)), ({3, 5}, 0, (5, 5)), ({4, 5}, 2, (4, 5)), ({4, 5}, 4, (5, 5)), ({1, 2, 3, 4, 5}, 0, (1, 5))],
)
async def test_a_reader_whose_end_is_lost_meanwhile_says_so_after_all_before_it(
    log: JetStreamLog, nc: Connection, lose_when: LoseWhen, lost: set[int], start: int, gone: tuple[int, int]
) -> None:
    async with losing(nc, log.subjects, 0) as stream:
        await log.append_all([created(run_address()) for _ in range(5)])
        end = await log.end(0)
        await lose_when(stream, lost)
        seen: list[int] = []
        with pytest.raises(EndLostError) as caught:
            await collect(seen, read_up_to(log, 0, end, after=start))
    assert (caught.value.details["first"], caught.value.details["last"]) == gone
    assert f"position{'' if gone[0] == gone[1] else 's'} {gone[0]}" in caught.value.message
    assert seen == list(range(start + 1, gone[0]))


async def test_a_filtered_reader_ends_when_what_it_expected_is_lost(
    log: JetStreamLog, nc: Connection, lose_when: LoseWhen
) -> None:
    async with losing(nc, log.subjects, 0) as stream:
        commits = [created(run_address()) for _ in range(3)]
        await log.append_all(commits)
        await lose_when(stream, [2, 3])
        filters = [log.subjects.guard(commit.address) for commit in commits[:2]]
        async with asyncio.timeout(MANY_SECONDS):
            seen = [m.position.sequence async for batch in read_up_to(log, 0, 3, filters=filters) for m in batch]
    assert seen == [1]


async def test_the_history_ends_with_what_is_left_when_its_last_commit_is_lost(
    log: JetStreamLog, nc: Connection
) -> None:
    async with losing(nc, log.subjects, 0) as stream:
        first = created(run_address())
        for version in range(3):
            await log.append(first if not version else after(first, version))
        await stream.lose([3])
        async with asyncio.timeout(MANY_SECONDS):
            assert [stored.position.sequence for stored in await log.history(first.address)] == [1, 2]


async def test_a_parked_commit_that_is_lost_at_the_end_is_read_again_without_content(
    log: JetStreamLog, nc: Connection
) -> None:
    await filled(log, nc, {3, 5})
    async with asyncio.timeout(MANY_SECONDS):
        messages = await read_again(log, 0, [2, 3, 5])
    assert [message.position.sequence for message in messages] == [2, 3, 5]
    assert [message.data for message in messages[1:]] == [b"", b""]
    assert [message.subject for message in messages[1:]] == [log.subjects.lost(0, 3), log.subjects.lost(0, 5)]


async def test_commits_go_on_behind_lost_ones_and_still_expect_their_version(log: JetStreamLog, nc: Connection) -> None:
    async with losing(nc, log.subjects, 0) as stream:
        first = created(run_address())
        await log.append(first)
        await log.append(after(first, 1))
        await stream.lose([2])
    assert (await log.history(first.address))[-1].position.sequence == 1
    with pytest.raises(AppendConflictError):
        await log.append(created(first.address))
    assert await log.append(after(first, 1)) == Position(1, 0, 3)
    assert await log.append(created(run_address())) == Position(1, 0, 4)
    assert [message.position.sequence for message in await read_to(log, 4)] == [1, 2, 3, 4]


async def test_a_commit_that_was_lost_is_not_acknowledged_again(nats_url: str, namespace: str) -> None:
    async with (
        connected(nats_url) as nc,
        await open_log(nc, namespace, create=True, partitions=1, append_seconds=0.2) as log,
        losing(nc, log.subjects, 0) as stream,
    ):
        commit = created(run_address())
        await log.append(commit)
        await stream.lose([1])
        with pytest.raises(InternalError, match="did not take"):
            await log.append(commit)


async def test_a_lost_commit_is_the_same_in_a_segment_and_in_the_log(log: JetStreamLog, nc: Connection) -> None:
    await filled(log, nc, {2})
    message = (await read_to(log, 5))[1]
    line, types = line_of(message)
    assert types is None
    archived = read_line(line, f"{log.subjects.prefix(0)}.", 1, 0, "segment", 1)
    assert content_of(archived) == content_of(message)
    assert hash_of(archived) == hash_of(message)


async def test_more_lost_messages_than_a_full_disk_explains_are_an_error(log: JetStreamLog, nc: Connection) -> None:
    async with losing(nc, log.subjects, 0) as stream:
        await log.append_all([created(run_address()) for _ in range(MAX_LOST + 2)])
        await stream.lose_all_up_to(MAX_LOST + 1)
    with pytest.raises(InternalError) as caught:
        await read_to(log, MAX_LOST + 2)
    assert caught.value.code == "gapInLog"
    assert not isinstance(caught.value, BadRequestError)
