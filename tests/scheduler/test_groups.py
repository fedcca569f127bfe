"""The places of runs in their groups, and the outcomes of a group's runs under one up-to-date scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runstream.domain.group import Neighbour, Place
from runstream.domain.run import RunState
from runstream.events.run_config import Concurrency, GroupPolicy
from runstream.run_states import RunPhase, RunResult
from runstream.runconfig.parse import POLICIES
from runstream.scheduler.groups import Groups
from tests.domain.test_run import new_run
from tests.domain.world import World, config, task


def slow_place(runs: Sequence[tuple[RunState, Concurrency]], at: int) -> Place:
    """Where the run at this index stands, said as plainly as can be."""

    def neighbour(index: int) -> Neighbour:
        run, concurrency = runs[index]
        return Neighbour(run.id, run.counter, concurrency.policy)

    def last(indexes: list[int]) -> Neighbour | None:
        return neighbour(indexes[-1]) if indexes else None

    own, concurrency = runs[at]
    named = [index for index, (run, _) in enumerate(runs) if run.name == own.name]
    later = [index for index in named if index > at]
    waiting = [index for index in named if 0 < index < at]
    return Place(
        first=neighbour(0),
        earlier=None if named[0] == at else neighbour(named[0]),
        waiting=len(waiting) if concurrency.max_waiting else 0,
        replaced_by=last([i for i in later if runs[i][1].policy in ("cancel_waiting", "cancel_running")]),
        stopped_by=last([i for i in later if runs[i][1].policy == "cancel_running"]),
    )


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_places_are_those_of_a_slow_reference(random: Random, moves: int) -> None:
    groups = Groups()
    there: dict[str, list[tuple[RunState, Concurrency]]] = {"/user/a/x": [], "/user/a/y": []}
    for number in range(1, moves + 1):
        group = random.choice(list(there))
        runs = there[group]
        if runs and random.random() < 0.4:
            ended, _ = runs.pop(random.randrange(len(runs)))
            touched = groups.left(ended)
            assert touched == [run.id for run, _ in runs[:1]]
            assert groups.left(ended) == []
        else:
            concurrency = Concurrency(random.choice(POLICIES), random.choice([0, 1, 2]))
            run = replace(new_run(), id=f"r{number}", counter=number, group=group, name=random.choice("ab"))
            earlier = [other.id for other, _ in runs if other.name == run.name]
            asks = concurrency.policy in ("cancel_waiting", "cancel_running")
            assert groups.joined(run, concurrency) == (earlier if asks else [])
            assert groups.joined(run, concurrency) == []
            runs.append((run, concurrency))
        for runs in there.values():
            for index, (run, concurrency) in enumerate(runs):
                found, expected = groups.place(run, concurrency), slow_place(runs, index)
                bound = concurrency.max_waiting
                assert replace(found, waiting=min(found.waiting, bound)) == replace(
                    expected, waiting=min(expected.waiting, bound)
                )


def group_of(*wanted: tuple[str, GroupPolicy, int]) -> tuple[World, list[str]]:
    """A group whose first run is running when the others come, with one scheduler."""
    world = World(Random(0), schedulers=1)  # noqa: S311
    runs = []
    for name, policy, bound in wanted:
        content = replace(config(task("a"), name=name), concurrency=Concurrency(policy, bound))
        runs.append(world.create(content))
        for _ in range(3):
            schedule(world)
    return world, runs


def schedule(world: World) -> None:
    (scheduler,) = world.schedulers
    scheduler.catch_up()
    scheduler.plan()
    scheduler.append_runs()
    scheduler.append_rest()


RUNNING, QUEUED, CANCELLED = RunPhase.RUNNING, RunPhase.QUEUED, RunPhase.CANCELLED


@pytest.mark.parametrize(
    ("wanted", "phases", "stopped"),
    [
        ([("a", "queue", 0)] * 3, [RUNNING, QUEUED, QUEUED], False),
        ([("a", "cancel_waiting", 0)] * 4, [RUNNING, CANCELLED, CANCELLED, QUEUED], False),
        ([("a", "cancel_running", 0)] * 3, [RUNNING, CANCELLED, QUEUED], True),
        ([("a", "queue", 0), ("a", "queue", 0), ("a", "cancel_running", 0)], [RUNNING, CANCELLED, QUEUED], True),
        ([("a", "skip", 0)] * 3, [RUNNING, CANCELLED, CANCELLED], False),
        ([("a", "queue", 1)] * 4, [RUNNING, QUEUED, CANCELLED, CANCELLED], False),
        ([("a", "queue", 2)] * 4, [RUNNING, QUEUED, QUEUED, CANCELLED], False),
        ([("a", "queue", 0), ("b", "cancel_running", 0)], [RUNNING, QUEUED], False),
        ([("a", "queue", 0), ("b", "skip", 0), ("b", "skip", 0)], [RUNNING, QUEUED, CANCELLED], False),
        ([("a", "queue", 0), ("b", "queue", 1), ("b", "queue", 1)], [RUNNING, QUEUED, CANCELLED], False),
    ],
)
def test_policies(wanted: list[tuple[str, GroupPolicy, int]], phases: list[RunPhase], stopped: bool) -> None:
    world, runs = group_of(*wanted)
    assert [world.run(run).phase for run in runs] == phases
    first = world.run(runs[0])
    assert (first.stop, bool(first.reason)) == (stopped, stopped)
    for run in map(world.run, runs):
        assert bool(run.reason) == (run.phase is CANCELLED or run.stop)
    world.settle()
    assert all(world.run(run).archived for run in runs)
    assert [world.run(run).phase is CANCELLED for run in runs] == [phase is CANCELLED for phase in phases]


def test_a_decision_that_differs_is_never_taken_for_the_same() -> None:
    """One scheduler knows that the run before has ended, and starts the next; another one does not, and numbers it."""
    world = World(Random(0), schedulers=2)  # noqa: S311
    ahead, behind = world.schedulers
    first, second = world.create(config(task("a"))), world.create(config(task("a")))
    behind.catch_up()
    world.ask(first, "cancel")
    ahead.catch_up()
    for scheduler in (behind, ahead):
        scheduler.plan()
    for scheduler in (behind, ahead):
        scheduler.append_runs()
        scheduler.append_rest()
    assert world.run(second).phase is RunPhase.QUEUED
    assert world.truth.executor_tasks == {}
    world.settle()
    assert world.run(second).result is RunResult.SUCCESS
