"""Faults that only the log on JetStream meets: dead servers, refused batches, foreign streams."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from nats.aio.client import Client

from runstream.commits import Position
from runstream.errors import BadRequestError, InternalError, NotExistError
from runstream.jetstream.api import request
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.pull import PullConsumer
from runstream.log.group_commit import PLAIN_COMMITS
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.log.port import AppendConflictError, Log, RawMessage
from tests.links import link
from tests.log.commits import after, assigned, created, run_address, task_address
from tests.log.servers import Connection, connected, killed_and_started, own_server

MANY = PLAIN_COMMITS + 5


async def test_a_refused_batch_falls_back_to_one_by_one(log: JetStreamLog) -> None:
    taken = created(run_address())
    await log.append(taken)
    commits = [created(run_address()) for _ in range(MANY)]
    commits[3] = created(taken.address)
    answers = await log.append_all(commits)
    assert [isinstance(a, AppendConflictError) for a in answers] == [n == 3 for n in range(MANY)]
    assert await log.end(0) == MANY


async def test_a_commit_that_its_stream_never_takes_is_refused_at_once(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc, await open_log(nc, namespace, create=True, partitions=1) as log:
        stream = log.subjects.stream(0)
        config = (await request(nc, f"STREAM.INFO.{stream}"))["config"]
        await request(nc, f"STREAM.UPDATE.{stream}", config | {"max_msg_size": 10})
        with pytest.raises(BadRequestError) as caught:
            await log.append(created(run_address()))
        assert caught.value.code == "commitTooLarge"


async def test_a_batch_that_holds_a_commit_again_answers_with_its_position(log: JetStreamLog) -> None:
    known = created(run_address())
    position = await log.append(known)
    answers = await log.append_all([known, *(created(run_address()) for _ in range(MANY))])
    assert answers[0] == position
    assert all(isinstance(a, Position) for a in answers)
    assert await log.end(0) == MANY + 1


async def test_a_batch_is_one_batch_and_its_commits_follow_each_other(log: JetStreamLog) -> None:
    answers = await log.append_all([created(run_address()) for _ in range(MANY)])
    assert answers == [Position(1, 0, n) for n in range(1, MANY + 1)]
    async with log.read(0, 0) as reader:
        batch = await reader.next_batch()
    assert len({message.headers["Nats-Batch-Id"] for message in batch}) == 1


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    async with (
        own_server(tmp_path) as server,
        connected(server.url) as nc,
        connected(server.url) as other,
        await open_log(nc, "killed", create=True, partitions=2) as log,
        await open_log(other, "killed") as reading,
    ):
        acknowledged: dict[str, Position] = {}
        seen: list[RawMessage] = []
        enough, half = asyncio.Event(), asyncio.Event()

        async def write(partition: int) -> None:
            while not enough.is_set():
                first = created(run_address(partition))
                position = await log.append(first)
                second = after(first, position.sequence)
                acknowledged[first.id] = position
                acknowledged[second.id] = await log.append(second)
                if len(acknowledged) > 300:
                    half.set()
                if len(acknowledged) > 900:
                    enough.set()

        async def follow() -> None:
            async with reading.read(0, 0) as reader:
                while not enough.is_set() or len(seen) < await reading.end(0):
                    seen.extend(await reader.next_batch())

        async with asyncio.TaskGroup() as group:
            group.create_task(follow())
            for n in range(30):
                group.create_task(write(n % 2))
            await half.wait()
            await killed_and_started(server)
        assert [message.position.sequence for message in seen] == list(range(1, len(seen) + 1))
        stored = {
            message.headers["Nats-Msg-Id"]: message.position for p in (0, 1) for message in await everything(log, p)
        }
        assert len(stored) == await log.end(0) + await log.end(1)
        assert stored.items() >= acknowledged.items()


async def everything(log: Log, partition: int) -> list[RawMessage]:
    messages: list[RawMessage] = []
    async with log.read(partition, 0) as reader:
        while len(messages) < await log.end(partition):
            messages += await reader.next_batch()
    return messages


async def test_a_log_that_cannot_be_reached_is_a_clear_error(tmp_path: Path) -> None:
    async with (
        own_server(tmp_path) as server,
        connected(server.url) as nc,
        await open_log(nc, "away", create=True, partitions=1, append_seconds=0.2) as log,
    ):
        await server.stop()
        with pytest.raises(InternalError, match="did not take run/") as caught:
            await log.append(created(run_address()))
        assert caught.value.code == "logUnreachable"
        assert caught.value.hint


async def test_a_log_is_made_once_and_opened_by_all(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        with pytest.raises(NotExistError, match="there is no log"):
            await open_log(nc, namespace)
        async with asyncio.TaskGroup() as group:
            opened = [group.create_task(open_log(nc, namespace, create=True, partitions=3)) for _ in range(4)]
        logs = [task.result() for task in opened]
        assert {(log.partitions, log.epoch) for log in logs} == {(3, 1)}
        for log in logs:
            await log.close()
            await log.close()
        with pytest.raises(InternalError, match="the log is closed"):
            await logs[0].append(created(run_address()))


async def test_another_number_of_partitions_is_an_error_that_says_what_to_do(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        await (await open_log(nc, namespace, create=True, partitions=3)).close()
        with pytest.raises(BadRequestError, match="has 3 partitions, not 4") as caught:
            await open_log(nc, namespace, create=True, partitions=4)
        assert "set partitions to 3" in caught.value.hint


@pytest.mark.parametrize(
    ("description", "says"),
    [
        (b'{"epoch":1,"partitions":1,"format":2}', "has format 2, this Runstream knows up to 1"),
        (b'{"hello":"world"}', "its description cannot be read"),
        (b"\xff", "its description cannot be read"),
        (b'{"epoch":1,"partitions":2,"format":1}', "says .*'partitions': '1'"),
    ],
)
async def test_a_log_that_is_not_ours_is_refused(nats_url: str, namespace: str, description: bytes, says: str) -> None:
    async with connected(nats_url) as nc:
        await (await open_log(nc, namespace, create=True, partitions=1)).close()
        await nc.jetstream().publish(f"$KV.{namespace}_control.runs", description)
        with pytest.raises(BadRequestError, match=says):
            await open_log(nc, namespace, create=True)


async def test_a_described_log_without_its_stream_is_not_made_anew(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        await (await open_log(nc, namespace, create=True, partitions=2)).close()
        await request(nc, f"STREAM.DELETE.{namespace}_runs_1_1")
        with pytest.raises(NotExistError, match=f"its stream {namespace}_runs_1_1 is missing"):
            await open_log(nc, namespace, create=True, partitions=2)


async def test_foreign_streams_are_refused(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        name = f"{namespace}_runs_1_0"
        await request(nc, f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{namespace}.runs.1.0.>"]})
        with pytest.raises(BadRequestError, match="says nothing about itself"):
            await open_log(nc, namespace, create=True, partitions=1)


@pytest.mark.parametrize(("bad", "partitions"), [("a.b", 1), ("", 1), ("x" * 41, 1), ("fine", 0), ("fine", 257)])
async def test_bad_settings_are_refused_before_anything_is_made(nats_url: str, bad: str, partitions: int) -> None:
    async with connected(nats_url) as nc:
        with pytest.raises(BadRequestError):
            await open_log(nc, bad, create=True, partitions=partitions)


async def test_a_reader_goes_on_when_its_consumer_is_deleted(log: JetStreamLog, nc: Connection) -> None:
    await log.append(created(run_address()))
    async with log.read(0, 0) as reader:
        await reader.next_batch()
        stream = log.subjects.stream(0)
        for name in (await request(nc, f"CONSUMER.NAMES.{stream}"))["consumers"]:
            await request(nc, f"CONSUMER.DELETE.{stream}.{name}")
        commit = created(run_address())
        await log.append(commit)
        (message,) = await reader.next_batch()
        assert orjson.loads(message.data)["id"] == commit.id


async def test_a_reader_keeps_its_consumer_over_a_new_connection_and_misses_nothing(
    log: JetStreamLog, nats_url: str
) -> None:
    await log.append(created(run_address()))
    namespace = log.subjects.namespace
    async with link(nats_url) as way, nats_connection(way.url) as nc, await open_log(nc, namespace) as there:
        stream = log.subjects.stream(0)
        async with there.read(0, 0) as reader:
            await reader.next_batch()
            consumers = (await request(nc, f"CONSUMER.NAMES.{stream}"))["consumers"]
            assert len(consumers) == 1
            way.break_off()
            way.mend()
            await _connected_again(nc)
            position = await log.append(created(run_address()))
            (message,) = await reader.next_batch()
            assert message.position == position
            assert (await request(nc, f"CONSUMER.NAMES.{stream}"))["consumers"] == consumers
            way.break_off()
            position = await log.append(created(run_address()))
            way.mend()
            (message,) = await reader.next_batch()
            assert message.position == position


async def _connected_again(nc: Client) -> None:
    while not (nc.is_connected and nc.stats["reconnects"]):  # noqa: ASYNC110 - the library has no event for it
        await asyncio.sleep(0.05)  # sleeps: the client has no event for it


async def test_a_lost_message_is_noticed_in_a_quiet_log(log: JetStreamLog, nats_url: str) -> None:
    await log.append(created(run_address()))
    namespace = log.subjects.namespace
    async with (
        link(nats_url) as way,
        nats_connection(way.url) as nc,
        await open_log(nc, namespace) as there,
        there.read(0, 0) as reader,
    ):
        await reader.next_batch()
        way.answers_to_lose = 1
        position = await log.append(created(run_address()))
        (message,) = await reader.next_batch()
        assert message.position == position


async def test_a_consumer_that_is_not_answered_is_made_again_and_none_is_left_over(
    log: JetStreamLog, nats_url: str
) -> None:
    stream = log.subjects.stream(0)
    async with link(nats_url) as way, nats_connection(way.url) as nc:
        consumer = PullConsumer(nc, stream, {"deliver_policy": "all"})
        way.answers_to_lose = 1
        await consumer.open()
        while len((await request(nc, f"CONSUMER.NAMES.{stream}"))["consumers"]) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # sleeps: a deletion is sent without waiting for its answer
        await log.append(created(run_address()))
        assert len(await consumer.deliveries(10)) == 1
        await consumer.close()


async def test_a_reader_does_not_go_on_in_a_log_that_was_made_anew(log: JetStreamLog, nc: Connection) -> None:
    await log.append(created(run_address()))
    async with log.read(0, 0) as reader:
        await reader.next_batch()
        stream, origin = log.subjects.stream(0), await log.origin(0)
        config = (await request(nc, f"STREAM.INFO.{stream}"))["config"]
        await request(nc, f"STREAM.DELETE.{stream}")
        await request(nc, f"STREAM.CREATE.{stream}", config)
        await log.append_all([created(run_address()) for _ in range(3)])
        with pytest.raises(InternalError) as caught:
            await reader.next_batch()
    assert caught.value.code == "logRestored"
    assert await log.origin(0) != origin


async def test_compression_of_a_stream_is_turned_off_when_its_log_is_taken_into_use(
    nats_url: str, namespace: str
) -> None:
    async with connected(nats_url) as nc, await open_log(nc, namespace, create=True, partitions=2) as log:
        first, second = log.subjects.stream(0), log.subjects.stream(1)
        assert [await compression(nc, stream) for stream in (first, second)] == ["none", "none"]
        config = (await request(nc, f"STREAM.INFO.{second}"))["config"]
        await request(nc, f"STREAM.UPDATE.{second}", config | {"compression": "s2"})
        before = [created(run_address(1)) for _ in range(MANY)]
        await log.append_all(before)
        await log.rest()
        await log.resume()
        assert await compression(nc, second) == "none"
        await log.append(created(run_address(1)))
        stored = [message.headers["Nats-Msg-Id"] for message in await everything(log, 1)]
        assert stored[:MANY] == [commit.id for commit in before]
        assert len(stored) == MANY + 1


async def compression(nc: Client, stream: str) -> str:
    return str((await request(nc, f"STREAM.INFO.{stream}"))["config"]["compression"])


async def test_more_subjects_than_nats_lists_are_read_all_the_same(log: JetStreamLog) -> None:
    await log.append_all([assigned(task_address("e1", f"t{number}")) for number in range(1030)])
    found = await log.messages(0, [f"{log.subjects.prefix(0)}.task.>"])
    assert [message.position.sequence for message in found] == [*range(1, 1031)]
