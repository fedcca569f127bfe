"""A scheduler that rereads decisions, as after a restore of the log, does not count slots that no task uses."""

from __future__ import annotations

from random import Random

import pytest

from runstream.events.run_config import Depend
from tests.domain.world import Scheduler, World, config, task

CHAIN = config(task("a"), task("b", Depend("a", ("on_success",)), level=1))


def finished(runs: int) -> World:
    """A world in which all runs have ended, at an executor with room for two tasks."""
    world = World(Random(1), schedulers=1, executors=1)  # noqa: S311
    for number in range(runs):
        world.create(CHAIN, f"/project/p{number % 2}/branch/main")
    world.settle()
    return world


def forget(scheduler: Scheduler) -> None:
    """What is archived is in the rows, and leaves the memory (see `runstream.scheduler.worker`)."""
    for run_id, tracked in list(scheduler.fold.runs.items()):
        if tracked.state.archived:
            del scheduler.fold.runs[run_id]
            for key in [key for key, t in scheduler.fold.executor_tasks.items() if t.state.run_id == run_id]:
                del scheduler.fold.executor_tasks[key]
            scheduler.decider.forget(run_id)


@pytest.mark.parametrize("when", ["planned", "appended"])
@pytest.mark.parametrize("reads", range(12))
def test_slots_are_counted_as_the_log_says(reads: int, when: str) -> None:
    """It reads `reads` commits, and forgets, while what it decides is on its way to the log."""
    world = finished(5)
    scheduler = Scheduler(world)
    while scheduler.read < len(world.log):
        scheduler.catch_up(1)
        scheduler.plan()
        for step in ("planned", "appended"):
            if step == when:
                scheduler.catch_up(reads)
                forget(scheduler)
            if step == "planned":
                scheduler.append_runs()
        scheduler.append_rest()
    scheduler.catch_up()
    forget(scheduler)
    assert scheduler.queue.capacity.load(world.offers["e0"]) == 0
    world.schedulers = [scheduler]
    assert not scheduler.fold.runs
    later = world.create(config(task("a")))
    world.settle()
    assert world.run(later).archived
