"""A log on a cluster of three: nodes are killed, or cut off from their peers with their clients still connected."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from runstream.commits import Position
from runstream.errors import InternalError
from runstream.jetstream.api import StreamMessage, request
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.direct import messages_of
from runstream.jetstream.failover import ELECTION_SECONDS, STORED_SECONDS, Answers, majority_silence
from runstream.jetstream.pull import ConsumerLostError, PullConsumer
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.service.doctor import log_streams
from runstream.settings import Settings
from tests.chaos.kills import Chaos, kills, say
from tests.cluster import NODES, Cluster, Node, cluster
from tests.log.commits import after, assigned, created, run_address, task_address

PARTITIONS = 2
MOST_KILLS = 30
WRITERS = 4
"""Of each partition."""
PROGRESS = 25
"""Commits that each partition must get between two kills."""
MOST_SECONDS = 10.0
"""Longest standstill of a partition, in seconds: an election takes up to nine."""


def test_a_server_is_left_when_one_kind_of_request_is_not_answered_for_three_seconds() -> None:
    now, left = 100.0, list[str]()
    answers = Answers(left.append, lambda: now)
    answers.unanswered("a", 1.0, "slow")
    answers.answered("b")
    now += 1.5
    answers.unanswered("a", 1.0, "slow")
    assert not left
    now += 0.6
    answers.unanswered("a", 0.5, "gone")
    assert left == ["a is not answered: gone"]


def test_a_refusal_counts_as_silence_where_there_was_silence_before() -> None:
    now, left = 100.0, list[str]()
    answers = Answers(left.append, lambda: now)
    answers.doubtful("a", "another was first")
    answers.unanswered("a", 1.5, "slow")
    for _ in range(4):
        now += 0.4
        answers.doubtful("a", "in process")
    assert left == ["a is not answered: in process"]


def test_a_server_that_answers_or_was_not_asked_is_not_left() -> None:
    now, left = 100.0, list[str]()
    answers = Answers(left.append, lambda: now)
    for _ in range(5):
        answers.unanswered("a", 2.0, "slow")
        now += 2.0
        answers.answered("a")
    answers.unanswered("a", 1.0, "slow")
    now += 60.0
    answers.unanswered("a", 1.0, "slow")
    assert not left


def test_a_server_through_which_other_things_are_stored_is_given_the_time_of_an_election() -> None:
    now, times = 100.0, list[float]()
    answers = Answers(lambda _: times.append(now), lambda: now)
    for _ in range(9):
        answers.stored()
        now += 1.0
        answers.unanswered("a", 1.0, "no leader")
    assert not times
    answers.stored()
    now += 1.0
    answers.unanswered("a", 1.0, "no leader")
    assert times == [100.0 + ELECTION_SECONDS]


def test_a_connection_through_which_nothing_is_stored_asks_for_each_stream_that_its_readers_wait_for() -> None:
    now = 100.0
    answers = Answers(clock=lambda: now)
    assert answers.to_ask() is None
    answers.stored()
    answers.awaited("a")
    assert answers.to_ask() is None
    now += STORED_SECONDS
    asked = []
    for _ in range(3):
        answers.awaited("a")
        answers.awaited("b")
        asked.append(answers.to_ask())
    assert asked == ["a", "b", "a"]
    answers.connected()
    assert answers.to_ask() is None


@pytest.mark.parametrize(
    ("active", "silence"),
    [
        ((), 0.0),
        ((0.1, 9.0), 0.1),
        ((4.0, 9.0), 4.0),
        ((0.1, 0.2, 4.0, 9.0), 0.2),
        ((0.1, 4.0, 9.0), 4.0),
        ((5.0,), 5.0),
    ],
)
def test_a_leader_without_a_majority_says_since_when(active: tuple[float, ...], silence: float) -> None:
    """Of itself and its replicas, two of three, three of four and five, two of two."""
    assert majority_silence({"replicas": [{"active": int(each * 1e9)} for each in active]}) == silence


@pytest.mark.seconds(150)
async def test_a_node_that_is_cut_off_is_left_and_what_it_lacks_is_asked_again(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path) as three,
        nats_connection(three.url) as nc,
        await open_log(nc, "cut", create=True, partitions=1, replicas=NODES) as log,
    ):
        await log.append(created(run_address()))
        leader = await _leader(three, nc, log)
        async with nats_connection(leader.url) as alone, await open_log(alone, "cut") as old:
            leader.cut_off()
            position = await log.append(created(run_address()))
            asked = asyncio.create_task(old.end(0, at_least=position.sequence))
            reading = asyncio.create_task(_next(old, position.sequence))
            await asyncio.wait({asked, reading}, timeout=1.0)
            assert not asked.done()
            assert not reading.done()
            leader.join()
            assert await asked >= position.sequence
            following = await log.append(created(run_address()))
            assert await reading == following


@pytest.mark.seconds(150)
async def test_messages_that_the_answering_replica_lacks_come_from_the_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lagging(*words: Any, **options: Any) -> dict[str, list[StreamMessage]]:
        return {subject: found[:-2] for subject, found in (await messages_of(*words, **options)).items()}

    monkeypatch.setattr("runstream.log.jetstream.messages_of", lagging)
    async with (
        cluster(tmp_path) as three,
        nats_connection(three.url) as nc,
        await open_log(nc, "lagging", create=True, partitions=1, replicas=NODES) as log,
    ):
        run, task = created(run_address()), assigned(task_address("e1", "t1"))
        for commit in (run, after(run, 1), after(after(run, 1), 2), task):
            await log.append(commit)
        guards = [log.subjects.guard(commit.address) for commit in (run, task)]
        assert [message.position.sequence for message in await log.messages(0, guards)] == [1, 2, 3, 4]
        assert [stored.commit.version for stored in await log.history(run.address)] == [1, 2, 3]


@pytest.mark.seconds(150)
async def test_a_connection_that_only_reads_leaves_a_node_without_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its consumer is on that node, which keeps on sending heartbeats."""
    monkeypatch.setattr("runstream.jetstream.connection._ASK_SECONDS", 0.5)
    async with (
        cluster(tmp_path) as three,
        nats_connection(three.url) as nc,
        await open_log(nc, "idle", create=True, partitions=1, replicas=NODES) as log,
    ):
        stream = log.subjects.stream(0)
        async with nats_connection(three.url) as reading:
            node = _server_of(three, reading)
            consumer = PullConsumer(reading, stream, {})
            while (await consumer.open())["cluster"]["leader"] != f"n{node.number}":
                await consumer.close()
                consumer = PullConsumer(reading, stream, {})
            node.cut_off()
            with pytest.raises(ConsumerLostError):
                await consumer.deliveries(1)
            assert _server_of(three, reading) is not node


async def _next(log: JetStreamLog, after: int) -> Position:
    async with log.read(0, after) as reader:
        return (await reader.next_batch(1))[0].position


async def _leader(three: Cluster, nc: Client, log: JetStreamLog) -> Node:
    info = await request(nc, f"STREAM.INFO.{log.subjects.stream(0)}")
    return three.nodes[int(info["cluster"]["leader"].removeprefix("n"))]


@dataclass
class Load:
    """Writers that append for as long as the test wants."""

    log: JetStreamLog
    acknowledged: dict[str, Position] = field(default_factory=dict)
    counts: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    enough: bool = False
    _appended: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, partition: int) -> None:
        while not self.enough:
            commit = created(run_address(partition))
            try:
                self.acknowledged[commit.id] = await self.log.append(commit)
            except InternalError:  # it may be stored or not: nothing was promised
                continue
            self.counts[partition] += 1
            self._appended.set()

    async def progress(self) -> None:
        """Wait until every partition has got some more commits."""
        goal = [count + PROGRESS for count in self.counts]
        while any(count < wanted for count, wanted in zip(self.counts, goal, strict=True)):
            self._appended.clear()
            await self._appended.wait()


@pytest.mark.chaos
@pytest.mark.seconds(900)
async def test_nodes_are_killed_again_and_again_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    chaos = Chaos(seed=7, ordinarily=1)
    slowest = 0.0
    async with (
        cluster(tmp_path) as three,
        nats_connection(three.url) as nc,
        await open_log(nc, "killed", create=True, partitions=PARTITIONS, replicas=NODES) as log,
    ):
        load, loop = Load(log), asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for number in range(PARTITIONS * WRITERS):
                group.create_task(load.write(number % PARTITIONS))
            await load.progress()
            for _ in zip(range(MOST_KILLS), chaos, strict=False):
                node = chaos.random.choice(three.nodes)
                begun = loop.time()
                await node.kill()
                await load.progress()
                slowest = max(slowest, loop.time() - begun)
                node.launch()
                await load.progress()
            load.enough = True
        say(f"{len(load.acknowledged)} acknowledged; at most {slowest:.1f} s until all partitions went on")
        await three.ready()
        for node in three.nodes:
            async with nats_connection(node.url) as each, await open_log(each, "killed") as there:
                stored = await _stored(there)
                assert stored.items() >= load.acknowledged.items()
        settings = Settings(data_dir=Path("/nowhere"), namespace="killed", replicas=NODES)
        found = {finding.what: finding async for finding in log_streams(nc, settings)}
        assert found["log readable"].status == "ok", found["log readable"]


async def _stored(log: JetStreamLog) -> dict[str, Position]:
    stored: dict[str, Position] = {}
    for partition in range(PARTITIONS):
        end, last = await log.end(partition), 0
        async with log.read(partition, 0) as reader:
            while last < end:
                for message in await reader.next_batch():
                    stored[message.headers["Nats-Msg-Id"]] = message.position
                    last = message.position.sequence
    return stored


async def _break(node: Node, fault: str) -> None:
    match fault:
        case "killed":
            await node.kill()
        case "frozen":
            node.signal(signal.SIGSTOP)
        case _:
            node.cut_off()


def _repair(node: Node, fault: str) -> None:
    match fault:
        case "killed":
            node.launch()
        case "frozen":
            node.signal(signal.SIGCONT)
        case _:
            node.join()


def _server_of(three: Cluster, nc: Client) -> Node:
    assert nc.connected_url is not None
    return next(node for node in three.nodes if node.port == nc.connected_url.port)


@pytest.mark.chaos
@pytest.mark.seconds(300)
async def test_a_partition_goes_on_within_ten_seconds_of_a_fault_of_one_node(tmp_path: Path) -> None:
    if not kills(0):
        pytest.skip("it takes minutes: `make chaos` measures it")
    late = {}
    async with (
        cluster(tmp_path) as three,
        nats_connection(three.url) as nc,
        await open_log(nc, "faults", create=True, partitions=PARTITIONS, replicas=NODES) as log,
        asyncio.TaskGroup() as group,
    ):
        load, loop = Load(log), asyncio.get_running_loop()
        for number in range(PARTITIONS * WRITERS):
            group.create_task(load.write(number % PARTITIONS))
        await load.progress()
        for fault in ("killed", "frozen", "cut off"):
            for role in ("leader of a partition", "server of the client"):
                leads = role == "leader of a partition"
                node = await _leader(three, nc, log) if leads else _server_of(three, nc)
                begun = loop.time()
                await _break(node, fault)
                await load.progress()
                still = loop.time() - begun
                say(f"{role + ' ' + fault:48} {still:5.1f} s")
                if still > MOST_SECONDS:
                    late[role, fault] = still
                _repair(node, fault)
                await three.ready()
                await load.progress()
        load.enough = True
    assert not late, f"partitions stood still for more than {MOST_SECONDS} s: {late}"
