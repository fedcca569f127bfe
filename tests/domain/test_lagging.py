"""A lagging scheduler decides on part of the log: the tasks that it assigns do no harm to ended runs."""

from __future__ import annotations

from random import Random

from runstream.domain.executor_task import NOBODY
from runstream.domain.run import RunTaskStatus
from runstream.events.executor_task import ExecutorTaskAssigned
from runstream.events.run import RunFinished

from .world import Scheduler, World, config, task


def begun() -> tuple[World, str, Scheduler, Scheduler]:
    """A run that has started, of whose only task nothing is decided yet, and two schedulers that know it."""
    world = World(Random(1), schedulers=2)  # noqa: S311 # it is played, not kept secret
    run_id = world.create(config(task("a")))
    first, lags = world.schedulers
    first.catch_up()
    first.plan()
    first.append_runs()
    first.accepted.clear()
    world.schedulers[0] = first = Scheduler(world)
    first.catch_up()
    lags.catch_up()
    return world, run_id, first, lags


def decide(scheduler: Scheduler) -> None:
    scheduler.plan()
    scheduler.append_runs()
    scheduler.append_rest()


def assigned_to(world: World) -> list[str]:
    events = (event for stored in world.log for event in stored.commit.events)
    return [event.executor_id for event in events if isinstance(event, ExecutorTaskAssigned)]


def test_what_is_not_to_run_any_more_cannot_be_assigned() -> None:
    world, run_id, first, lags = begun()
    world.ask(run_id, "stop")
    for _ in range(3):
        first.catch_up()
        decide(first)
    assert world.run(run_id).finished
    decide(lags)
    assert assigned_to(world) == [NOBODY]
    world.settle()
    assert world.statuses(run_id) == {"a": RunTaskStatus.SKIPPED}
    assert world.run(run_id).archived


def test_a_run_does_not_end_before_what_a_lagging_scheduler_assigned() -> None:
    world, run_id, first, lags = begun()
    world.ask(run_id, "stop")
    first.catch_up()
    first.plan()
    decide(lags)
    assert assigned_to(world) != [NOBODY]
    first.append_runs()
    first.append_rest()
    first.catch_up()
    decide(first)
    assert not world.run(run_id).finished
    world.settle()
    assert NOBODY not in assigned_to(world)
    (ended,) = (task.state for task in world.truth.executor_tasks.values())
    finished = next(s for s in world.log if any(isinstance(e, RunFinished) for e in s.commit.events))
    assert ended.start_time is None
    assert ended.end_time is not None
    assert ended.end_time <= finished.commit.time
