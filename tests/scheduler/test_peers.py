"""Scheduler processes that exchange gossip assign slots as one process would, and no slot stays unused for ever."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runstream.domain.executor import Demand, Offer, fits
from runstream.scheduler.capacity import Capacity
from runstream.scheduler.fair_queue import FairQueue, PendingTask
from runstream.scheduler.gossip import decode, encode
from tests.domain.world import offer

HOST = Demand("host", "", False, ())
GPU = Demand("host", "", False, (("gpu", "yes"),))
ROOTS = {"/project/a": 0, "/project/b": 1, "/project/c": 1, "/project/d": 2, "/project/e": 3}
"""Each with its partition."""


class Process:
    """One scheduler's fair queue; it takes each offered slot at once."""

    def __init__(self, name: str, offers: dict[str, Offer], partitions: tuple[int, ...]) -> None:
        self.name = name
        self.queue = FairQueue(Capacity(offers))
        self.asks: dict[str, PendingTask] = {}
        for partition in partitions:
            self.queue.own(partition, lambda _run: None)

    def want(self, asks: list[PendingTask]) -> None:
        self.asks.update((ask.id, ask) for ask in asks)
        self.queue.enqueue(asks)

    @property
    def at(self) -> dict[str, str]:
        """Which task is at which executor."""
        offers, capacity = self.queue.capacity.offers, self.queue.capacity
        return {
            ask.id: executor
            for ask in self.asks.values()
            for executor in offers
            if capacity.is_at(ask.partition, ask.id, executor)
        }

    @property
    def waiting(self) -> list[PendingTask]:
        return [ask for ask in self.asks.values() if self.queue.is_pending(ask)]

    def end(self, name: str) -> None:
        self.queue.take(self.asks[name])
        self.queue.closed(self.asks[name].partition, name)
        del self.asks[name]


class Deployment:
    """Processes that share executors."""

    def __init__(self, *partitions: tuple[int, ...]) -> None:
        self.offers = {"e": offer("e", 2), "g": replace(offer("g", 1), labels={"gpu": "yes"})}
        self.processes = [Process(f"p{n}", self.offers, owned) for n, owned in enumerate(partitions)]
        self.asked = 0

    def of(self, partition: int) -> Process:
        return next(one for one in self.processes if partition in one.queue.capacity.partitions)

    def ask(self, root: str, *, priority: int = 0, demand: Demand = HOST) -> PendingTask:
        self.asked += 1
        return PendingTask(f"a{self.asked}", ROOTS[root], f"r{self.asked}", "t", root, priority, self.asked, 0, demand)

    def want(self, *asks: PendingTask) -> None:
        self.of(asks[0].partition).want(list(asks))

    def tell(self, teller: Process, *hearers: Process) -> None:
        process, notice = decode(encode(teller.name, teller.queue.report()))
        for hearer in hearers:
            if hearer is not teller:
                hearer.queue.receive(process, notice)
                hearer.queue.reassign()

    def settle(self) -> None:
        """Exchange gossip until no process has anything new to announce."""
        said: list[object] = []
        while said != (said := [one.queue.report() for one in self.processes]):
            for teller in self.processes:
                teller.queue.reassign()
                self.tell(teller, *self.processes)

    @property
    def at(self) -> dict[str, str]:
        return {name: executor for one in self.processes for name, executor in one.at.items()}

    @property
    def waiting(self) -> list[PendingTask]:
        return [ask for one in self.processes for ask in one.waiting]

    def report(self) -> None:
        """Executors say what they have."""
        for executor_id, known in self.offers.items():
            counts = Counter(
                str(one.asks[name].partition)
                for one in self.processes
                for name, executor in one.at.items()
                if executor == executor_id
            )
            self.offers[executor_id] = replace(known, open_tasks=dict(counts))

    def unused(self) -> list[tuple[str, PendingTask]]:
        """Return the free slots that a waiting task could use."""
        loads = Counter(self.at.values())
        return [
            (executor_id, ask)
            for executor_id, known in self.offers.items()
            for ask in self.waiting
            if loads[executor_id] < known.active_tasks_limit and fits(known, ask.demand)
        ]


def random_asks(deployment: Deployment, random: Random) -> list[PendingTask]:
    root = random.choice(sorted(ROOTS))
    return [
        deployment.ask(root, priority=random.choice([0, 0, 0, 5, -5]), demand=random.choice([HOST, HOST, GPU]))
        for _ in range(random.randint(1, 4))
    ]


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_processes_that_hear_each_other_are_as_fair_as_one(random: Random, moves: int) -> None:
    one, three = Deployment((0, 1, 2, 3)), Deployment((0, 3), (1,), (2,))
    for _ in range(moves):
        move = random.randrange(7)
        if move < 3:
            asks = random_asks(one, random)
            one.want(*asks)
            three.want(*asks)
        elif move < 6 and one.at:
            name = random.choice(sorted(one.at))
            for deployment in (one, three):
                next(process for process in deployment.processes if name in process.asks).end(name)
        elif move == 6:
            executor_id = random.choice(["e", "g"])
            limit = max(one.offers[executor_id].active_tasks_limit + random.choice([1, -1]), 1)
            for deployment in (one, three):
                known = deployment.offers[executor_id]
                deployment.offers[executor_id] = replace(known, active_tasks_limit=limit)
                for process in deployment.processes:
                    process.queue.offered(executor_id)
        three.settle()
        assert three.at == one.at
        assert {ask.id for ask in three.waiting} == {ask.id for ask in one.waiting}


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 80))
def test_no_slot_stays_unused_however_late_gossip_arrives(random: Random, moves: int) -> None:
    deployment = Deployment((0, 3), (1,), (2,))
    for _ in range(moves):
        move = random.randrange(8)
        if move < 2:
            deployment.want(*random_asks(deployment, random))
        elif move < 4 and (at := deployment.at):
            name = random.choice(sorted(at))
            next(process for process in deployment.processes if name in process.asks).end(name)
        elif move < 7:
            deployment.tell(random.choice(deployment.processes), random.choice(deployment.processes))
        elif random.random() < 0.3 and len(deployment.processes) > 1:
            died = deployment.processes.pop(random.randrange(len(deployment.processes)))
            for process in deployment.processes:
                process.queue.receive(died.name, None)
            successor = random.choice(deployment.processes)
            for partition in died.queue.capacity.partitions:
                successor.queue.own(partition, lambda _run: None)
            successor.want(list(died.asks.values()))
        else:
            deployment.report()
    deployment.report()
    deployment.settle()
    assert not deployment.unused()
    while at := deployment.at:
        name = min(at)
        next(process for process in deployment.processes if name in process.asks).end(name)
        deployment.settle()
        assert not deployment.unused()
    assert not deployment.waiting


def greedy() -> tuple[Deployment, Process, Process]:
    """A project that holds all slots and wants many more, and another process that has heard of it."""
    deployment = Deployment((0,), (1,))
    big, small = deployment.processes
    deployment.want(*(deployment.ask("/project/a") for _ in range(50)))
    deployment.settle()
    return deployment, big, small


def test_a_slot_is_left_to_another_process_that_is_next() -> None:
    deployment, big, small = greedy()
    wanted = deployment.ask("/project/b")
    deployment.want(wanted)
    deployment.tell(small, big)
    big.end(next(name for name, executor in big.at.items() if executor == "e"))
    assert len(big.at) == 2
    assert deployment.waiting.count(wanted) == 1
    deployment.tell(big, small)
    assert small.at == {wanted.id: "e"}
    deployment.tell(small, big)
    assert len(big.at) == 2


def test_a_slot_left_to_a_peer_is_taken_when_the_peer_dies_or_declines() -> None:
    for what in ("dies", "gives up"):
        deployment, big, small = greedy()
        wanted = deployment.ask("/project/b")
        deployment.want(wanted)
        deployment.tell(small, big)
        big.end("a1")
        assert len(big.at) == 2
        if what == "dies":
            big.queue.receive(small.name, None)
            big.queue.reassign()
        else:
            small.queue.retain(1, wanted.run_id, ())
            deployment.tell(small, big)
        assert len(big.at) == 3


def test_how_many_come_before_counts_the_tasks_of_other_processes() -> None:
    deployment, big, small = greedy()
    wanted = [deployment.ask("/project/b", priority=-1) for _ in range(2)]
    deployment.want(*wanted)
    deployment.settle()
    assert small.queue.ahead_of(wanted[1]) == 47 + 1
    assert big.queue.ahead_of(big.waiting[0]) == 0


def test_a_process_of_another_rule_says_nothing() -> None:
    _, big, _ = greedy()
    said = encode("p", big.queue.report())
    assert decode(said) == ("p", big.queue.report())
    assert decode(said.replace(b'"rule":1', b'"rule":2')) == ("p", None)
