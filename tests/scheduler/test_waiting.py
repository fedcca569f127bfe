"""Runs that wait for an executor cost nothing while there is no free slot, however many there are."""

from __future__ import annotations

from random import Random

import pytest

from runstream.scheduler import decisions
from tests.domain.world import World, config, offer, task

RUNS = 60


def test_a_run_is_examined_when_it_changes_or_a_slot_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
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
