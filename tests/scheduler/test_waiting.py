"""Runs that wait for an executor cost nothing as long as there is no room, however many they are."""

from __future__ import annotations

from random import Random

import pytest

from runstream.scheduler import decisions
from tests.domain.world import World, config, offer, task

RUNS = 60


def test_a_run_is_looked_at_when_something_happens_to_it_or_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    plan_run = decisions.plan_run

    def counted(*args: object, **named: object) -> object:
        nonlocal looks
        looks += 1
        return plan_run(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(decisions, "plan_run", counted)
    world = World(Random(1), schedulers=1, executors=1)  # noqa: S311
    world.offers["e0"] = offer("e0", 1)
    runs = [world.create(config(task("a")), f"/project/p/branch/b{number}") for number in range(RUNS)]
    world.settle()
    assert all(world.run(run).archived for run in runs)
    assert looks < 10 * RUNS
