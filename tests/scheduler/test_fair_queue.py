"""The order in which tasks get scarce slots: priority, share, age; no task waits for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from runstream.domain.executor import Demand, Offer, choose_executor, fits
from runstream.scheduler.capacity import Capacity
from runstream.scheduler.fair_queue import BY_SHARE_EVERY, FairQueue, PendingTask
from tests.domain.world import offer

HOST = Demand("host", "", False, ())
GPU = Demand("host", "", False, (("gpu", "yes"),))


class Asking:
    """A fair queue of two partitions, and the runs that got slots."""

    def __init__(self, *offers: Offer, partitions: Sequence[int] = (0, 1)) -> None:
        self.offers = {one.executor_id: one for one in offers}
        self.queue = FairQueue(Capacity(self.offers))
        self.told: list[str] = []
        self.asked: dict[str, PendingTask] = {}
        for partition in partitions:
            self.queue.own(partition, self.told.append)

    def ask(
        self, name: str, root: str = "/user/a", *, priority: int = 0, demand: Demand = HOST, partition: int = 0
    ) -> PendingTask:
        number = len(self.asked) + 1
        ask = PendingTask(name, partition, f"run-{name}", "t", root, priority, number, 0, demand)
        self.asked[name] = ask
        return ask

    def want(self, *asks: PendingTask) -> list[str | None]:
        """Where each of them goes at once."""
        self.queue.enqueue(asks)
        return [self.take(ask.id) for ask in asks]

    def take(self, name: str) -> str | None:
        ask = self.asked[name]
        executor_id = self.queue.take(ask)
        if executor_id is not None:
            self.queue.opened(ask.partition, name, executor_id, ask.root)
        return executor_id

    def end(self, name: str) -> list[str]:
        """A task ends; whose turn it was then, taken at once."""
        before = len(self.told)
        self.queue.closed(self.asked[name].partition, name)
        told = [run.removeprefix("run-") for run in self.told[before:]]
        assert all(self.take(one) for one in told)
        return told


def test_tasks_that_find_a_slot_start_at_once_and_the_rest_wait() -> None:
    around = Asking(offer("e", 2))
    a, b, c = (around.ask(name) for name in "abc")
    assert around.want(a, b, c) == ["e", "e", None]
    assert (around.queue.is_pending(b), around.queue.is_pending(c)) == (False, True)
    assert around.told == []
    assert around.end("a") == ["c"]


def test_a_higher_priority_goes_first_and_then_the_oldest_run() -> None:
    around = Asking(offer("e", 1))
    around.want(around.ask("runs"))
    around.want(around.ask("old"), around.ask("new"), around.ask("urgent", priority=5), around.ask("low", priority=-5))
    ended = ["runs", "urgent", "old", "new"]
    assert [around.end(name) for name in ended[:3]] == [["urgent"], ["old"], ["new"]]
    assert around.end("new") == ["low"]


def test_the_smallest_share_goes_first_also_across_partitions() -> None:
    """The project that has much waits for the one that has little, although its runs are older."""
    around = Asking(offer("e", 4))
    big = [around.ask(f"big{n}", "/project/big", partition=0) for n in range(8)]
    assert around.want(*big) == ["e"] * 4 + [None] * 4
    small = [around.ask(f"small{n}", "/project/small", partition=1) for n in range(3)]
    assert around.want(*small) == [None] * 3
    assert [around.end(f"big{n}") for n in range(2)] == [["small0"], ["small1"]]
    # Two each: whose task ends has less, and goes next.
    assert around.end("big2") == ["big4"]
    assert around.end("small0") == ["small2"]


def test_with_little_room_projects_take_turns() -> None:
    around = Asking(offer("e", 1))
    big = [around.ask(f"big{n}", "/project/big") for n in range(4)]
    around.want(*big, *(around.ask(f"small{n}", "/project/small") for n in range(2)))
    last, order = "big0", []
    while last_told := around.end(last):
        (last,) = last_told
        order.append(last)
    assert order == ["small0", "big1", "small1", "big2", "big3"]


def test_urgent_tasks_do_not_starve_the_others() -> None:
    around = Asking(offer("e", 1))
    around.want(around.ask("u0", "/project/loud", priority=100))
    around.want(around.ask("quiet", "/project/quiet", priority=-100))
    last, order = "u0", []
    for number in range(1, 10):
        around.want(around.ask(f"u{number}", "/project/loud", priority=100))
        (last,) = around.end(last)
        order.append(last)
    assert order.index("quiet") < BY_SHARE_EVERY


def test_a_slot_is_kept_for_its_task_until_it_takes_it() -> None:
    around = Asking(offer("e", 1))
    around.want(around.ask("runs"))
    around.want(around.ask("first"))
    around.queue.closed(0, "runs")
    assert around.told == ["run-first"]
    assert around.want(around.ask("pushes in", priority=100)) == [None]
    assert around.take("first") == "e"


def test_a_slot_that_is_no_longer_wanted_goes_to_the_next_task() -> None:
    around = Asking(offer("e", 1))
    around.want(around.ask("runs"))
    around.want(around.ask("first"), around.ask("second"), around.ask("third"))
    around.queue.retain(0, "run-second", ())
    around.queue.closed(0, "runs")
    around.queue.retain(0, "run-first", ())
    assert around.told == ["run-first", "run-third"]
    assert (around.take("first"), around.take("second"), around.take("third")) == (None, None, "e")


def test_an_assignment_that_was_refused_gives_its_room_back_unless_it_is_elsewhere() -> None:
    around = Asking(offer("e", 1), offer("f", 1))
    around.want(around.ask("a"), around.ask("b"))
    around.want(around.ask("c"))
    around.queue.refused(0, "a", "e")
    assert around.told == ["run-c"]
    assert around.take("c") == "e"
    around.queue.opened(0, "b", "e", "/user/a")
    around.queue.refused(0, "b", "f")
    assert around.queue.capacity.load(around.offers["e"]) == 2


def test_tasks_that_fit_no_executor_do_not_block_the_queue() -> None:
    around = Asking(offer("e", 1))
    assert around.want(around.ask("gpu", demand=GPU, priority=100)) == [None]
    assert around.want(around.ask("host")) == ["e"]
    around.want(around.ask("next"))
    assert around.end("host") == ["next"]
    around.offers["g"] = structs.replace(offer("g", 1), labels={"gpu": "yes"})
    around.queue.offered("g")
    assert around.take("gpu") == "g"


def test_a_released_partition_gives_its_slots_to_the_others() -> None:
    around = Asking(offer("e", 2))
    around.want(around.ask("a", partition=0), around.ask("b", partition=0))
    around.want(around.ask("waits", partition=0), around.ask("other", partition=1))
    around.queue.closed(0, "a")
    assert around.told == ["run-waits"]
    around.queue.disown(0)
    assert around.told == ["run-waits", "run-other"]
    assert around.take("other") == "e"
    assert around.queue.capacity.share("/user/a") == 1
    around.queue.retain(1, "run-other", ())
    around.queue.closed(1, "other")
    assert around.queue.capacity.share("/user/a") == 0


def test_how_many_come_before() -> None:
    around = Asking(offer("e", 1))
    around.want(around.ask("runs", "/user/b"))
    asks = [around.ask("a"), around.ask("b", "/user/b"), around.ask("c", priority=1), around.ask("d", demand=GPU)]
    around.want(*asks)
    assert [around.queue.ahead_of(ask) for ask in asks] == [1, 2, 0, 0]


def test_an_attempt_goes_to_another_executor_if_one_has_room() -> None:
    around = Asking(offer("e", 3), offer("f", 1))
    again = [replace(around.ask(name), failed_at=("e",)) for name in "ab"]
    around.asked.update((ask.id, ask) for ask in again)
    assert around.want(again[0]) == ["f"]
    assert around.want(again[1]) == ["e"]


class Reference:
    """A naive fair queue: it scans all pending tasks each time."""

    def __init__(self, offers: dict[str, Offer]) -> None:
        self.offers = offers
        self.waiting: list[PendingTask] = []
        self.at: dict[str, tuple[PendingTask, str]] = {}
        self.given: Counter[str] = Counter()
        self.served: list[str] = []

    def share(self, root: str) -> int:
        return sum(1 for ask, _ in self.at.values() if ask.root == root)

    def loads(self) -> Counter[str]:
        return Counter(executor for _, executor in self.at.values())

    def room(self, executor_id: str) -> int:
        limit = self.offers[executor_id].active_tasks_limit
        return limit - self.loads()[executor_id] if limit else 1000

    def last_served(self, root: str) -> int:
        return max((n for n, served in enumerate(self.served, 1) if served == root), default=0)

    def turn(self, ask: PendingTask) -> tuple[int, int, int, int]:
        return -ask.priority, self.share(ask.root), self.last_served(ask.root), ask.sequence

    def turn_by_share(self, ask: PendingTask) -> tuple[int, int, int, int]:
        return self.share(ask.root), self.last_served(ask.root), -ask.priority, ask.sequence

    def forget_the_idle(self) -> None:
        known = {ask.root for ask in self.waiting} | {ask.root for ask, _ in self.at.values()}
        self.served = [root if root in known else "" for root in self.served]

    def grant(self, ask: PendingTask, executor_id: str) -> None:
        if ask in self.waiting:
            self.waiting.remove(ask)
        self.at[ask.id] = ask, executor_id
        self.served.append(ask.root)

    def want(self, asks: list[PendingTask]) -> None:
        free = sum(max(self.room(executor_id), 0) for executor_id in self.offers)
        easy = not self.waiting and free >= len(asks)
        for ask in asks:
            executor_id = choose_executor(self.offers, self.loads(), ask.demand) if easy else None
            if executor_id is not None:
                self.grant(ask, executor_id)
            else:
                self.waiting.append(ask)
        while found := [
            (ask, executor_id)
            for ask in self.waiting
            if (executor_id := choose_executor(self.offers, self.loads(), ask.demand)) is not None
        ]:
            self.grant(*min(found, key=lambda pair: self.turn(pair[0])))

    def give(self, executor_id: str) -> None:
        while self.room(executor_id) > 0:
            fitting = [ask for ask in self.waiting if fits(self.offers[executor_id], ask.demand)]
            if not fitting:
                return
            self.given[executor_id] += 1
            by_share = self.given[executor_id] % BY_SHARE_EVERY == 0
            self.grant(min(fitting, key=self.turn_by_share if by_share else self.turn), executor_id)

    def end(self, name: str) -> None:
        _, executor_id = self.at.pop(name)
        self.forget_the_idle()
        self.give(executor_id)


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 80))
def test_turns_are_those_of_a_slow_reference(random: Random, moves: int) -> None:
    around = Asking(offer("e", 2), structs.replace(offer("g", 1), labels={"gpu": "yes"}))
    reference = Reference(around.offers)
    for _ in range(moves):
        move = random.randrange(8)
        if move < 3:
            asks = [
                around.ask(
                    f"a{len(around.asked)}",
                    random.choice(["/user/a", "/user/b", "/project/c"]),
                    priority=random.choice([0, 0, 1, -1]),
                    demand=random.choice([HOST, HOST, GPU]),
                    partition=random.randrange(2),
                )
                for _ in range(random.randint(1, 4))
            ]
            around.queue.enqueue(asks)
            reference.want(asks)
        elif move < 6 and reference.at:
            name = random.choice(list(reference.at))
            around.take(name)
            around.queue.closed(around.asked[name].partition, name)
            reference.end(name)
        elif move == 6 and reference.waiting:
            ask = random.choice(reference.waiting)
            around.queue.retain(ask.partition, ask.run_id, ())
            reference.waiting.remove(ask)
            reference.forget_the_idle()
        elif move == 7:
            executor_id = random.choice(["e", "g"])
            limit = random.randint(1, 4)
            around.offers[executor_id] = structs.replace(around.offers[executor_id], active_tasks_limit=limit)
            around.queue.offered(executor_id)
            reference.give(executor_id)
        for name, ask in around.asked.items():
            waits = ask in reference.waiting
            assert around.queue.is_pending(ask) == waits
            if not waits and name in reference.at:
                assert around.queue.capacity.is_at(ask.partition, name, reference.at[name][1])
        assert all(around.queue.capacity.share(ask.root) == reference.share(ask.root) for ask in around.asked.values())
