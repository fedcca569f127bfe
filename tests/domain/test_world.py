"""Promises 3 and 4 of the design, played in any order that Hypothesis can think of."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runstream.domain.advance import runs_always
from runstream.domain.executor_task import NOBODY
from runstream.domain.run import RunState, RunTaskStatus
from runstream.events.executor_task import ExecutorTaskAssigned, ExecutorTaskStarted, ExecutorTaskStopRequested
from runstream.events.run import RunCancelled, RunFinished, RunStarted, RunStopRequested, RunTaskRetried
from runstream.names import numbered_name
from runstream.projections.fold import PartitionFold
from runstream.run_states import RunPhase, RunResult
from runstream.scheduler.decisions import ACTOR

from .world import Scheduler, World, random_config

GROUPS = ("/project/p/branch/main", "/project/p/branch/dev")


def play(world: World, random: Random, moves: int) -> None:
    for _ in range(moves):
        scheduler = random.choice(world.schedulers)
        move = random.randrange(13)
        runs = list(world.truth.runs)
        if move < 2:
            world.create(random_config(random), random.choice(GROUPS))
        elif move < 4:
            scheduler.catch_up(random.randint(1, 6))
        elif move == 4:
            scheduler.plan()
        elif move == 5:
            scheduler.append_runs()
        elif move == 6:
            scheduler.append_rest()
        elif move == 7 and runs:
            world.ask(random.choice(runs), random.choice(["stop", "cancel", "approve", "pause", "pause", "resume"]))
        elif move == 8 and random.random() < 0.2:
            world.lose(random.choice(list(world.offers)))
        elif move == 9 and random.random() < 0.2:
            world.report_late()
        elif move == 10 and runs:
            world.restart(random.choice(runs))
        elif move == 11 and random.random() < 0.2:
            world.schedulers[world.schedulers.index(scheduler)] = Scheduler(world)
        elif tasks := world.open_tasks():
            world.work(random.choice(tasks))


def _name(run: RunState) -> str:
    return numbered_name(run.group, run.counter, run.id)


def check_policy(fold: PartitionFold, run: RunState, event: RunCancelled | RunStopRequested) -> None:
    """A run is only ended for the sake of a later one that asks for it, or by its own policy for an earlier one."""
    others = [t.state for t in fold.runs.values() if (t.state.group, t.state.name) == (run.group, run.name)]
    wanted = {other.id: fold.configs[other.run_config].concurrency for other in others}
    later = {wanted[other.id].policy for other in others if other.counter > run.counter}
    if isinstance(event, RunStopRequested):
        assert "cancel_running" in later
    elif wanted[run.id].policy == "skip" and any(other.counter < run.counter for other in others):
        return
    elif not later & {"cancel_running", "cancel_waiting"}:
        bound = wanted[run.id].max_waiting
        assert 0 < bound < sum(1 for other in others if other.counter < run.counter) + 1
    replaced = "took its place" in event.reason
    named = next(other for other in others if event.reason.startswith(f"run {_name(other)} ")) if replaced else None
    assert named is None or (named.counter > run.counter and named.id != run.id)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(st.randoms(use_true_random=False), st.integers(10, 120))
def test_every_run_ends_once_and_alone_in_its_group(random: Random, moves: int) -> None:
    world = World(random)
    play(world, random, moves)
    world.settle()

    for tracked in world.truth.runs.values():
        assert tracked.state.finished
        assert tracked.state.archived
        assert tracked.state.paused_at is None
    fold = PartitionFold(0, 1)
    starts: Counter[str] = Counter()
    assigned: Counter[tuple[str, str, int]] = Counter()
    for stored in world.log:
        paused = {i for i, t in fold.runs.items() if t.state.paused_at is not None}
        ended = {i: t.state.phase for i, t in fold.executor_tasks.items() if not t.state.open}
        fold.apply(stored)
        assert all(fold.executor_tasks[i].state.phase is phase for i, phase in ended.items())
        running = Counter(t.state.group for t in fold.runs.values() if t.state.phase is RunPhase.RUNNING)
        assert max(running.values(), default=0) <= 1
        for event in stored.commit.events:
            if isinstance(event, ExecutorTaskStarted):
                starts[stored.commit.address.id] += 1
            if isinstance(event, RunStarted):
                assert stored.commit.address.id not in paused
            if isinstance(event, RunFinished):
                left = [t.state for t in fold.executor_tasks.values() if t.state.run_id == stored.commit.address.id]
                assert all(task.settled for task in left)
            if isinstance(event, RunCancelled | RunStopRequested) and stored.commit.actor == ACTOR:
                check_policy(fold, fold.runs[stored.commit.address.id].state, event)
            if isinstance(event, ExecutorTaskStopRequested):
                stopped = fold.executor_tasks[stored.commit.address.id].state
                run = fold.runs[stopped.run_id].state
                final = run.finished or run.tasks[stopped.task].status in (
                    RunTaskStatus.SKIPPED,
                    RunTaskStatus.CANCELLED,
                )
                assert final or not runs_always(fold.configs[run.run_config], stopped.task)
            if isinstance(event, ExecutorTaskAssigned) and event.executor_id == NOBODY:
                run = fold.runs[event.run_id].state
                assert run.result is not RunResult.UNKNOWN or all(task.finished for task in run.tasks.values())
                assert run.tasks[event.task].withdrawn == stored.commit.address.id
                assert fold.executor_tasks[stored.commit.address.id].state.settled
            elif isinstance(event, ExecutorTaskAssigned):
                run = fold.runs[event.run_id].state
                assert run.start_time is not None
                asked = fold.configs[run.run_config].tasks[event.task]
                assert all(run.tasks[depend.task].done for depend in asked.depends)
                assigned[event.run_id, event.run_task_id, event.attempt] += 1
                one = run.tasks[event.task]
                assert not one.kept
                assert event.attempt == one.attempt == len(one.attempts) + 1
                assert event.attempt <= 1 + (asked.retry.max if asked.retry is not None else 0)
                assert one.not_before is None or one.not_before <= stored.commit.time
            if isinstance(event, RunTaskRetried):
                run = fold.runs[stored.commit.address.id].state
                failing = run.result is RunResult.FAILED and not fold.configs[run.run_config].fail_fast
                assert failing or run.result is RunResult.UNKNOWN
    assert max(starts.values(), default=0) <= 1
    assert max(assigned.values(), default=0) <= 1
    assert len(world.started) == len(set(world.started))
    for scheduler in world.schedulers:
        assert scheduler.fold.runs == world.truth.runs
        assert scheduler.fold.counters == world.truth.counters
        assert not any(map(scheduler.queue.capacity.load, world.offers.values()))
    counters = [t.state.counter for t in world.truth.runs.values()]
    assert sorted(counters) == list(range(1, len(counters) + 1))
    assert len({t.state.sequence for t in world.truth.runs.values()}) == len(counters)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(st.randoms(use_true_random=False), st.integers(40, 120))
def test_a_run_that_was_parked_and_is_applied_late_leaves_the_same_state(random: Random, moves: int) -> None:
    world = World(random)
    play(world, random, moves)
    world.settle()
    parked = set(random.sample(sorted(world.truth.runs), len(world.truth.runs) // 2))
    parked |= {key for key, task in world.truth.executor_tasks.items() if task.state.run_id in parked}
    fold = PartitionFold(0, 1)
    for stored in world.log:
        if stored.commit.address.id not in parked:
            fold.apply(stored)
    for stored in world.log:
        if stored.commit.address.id in parked:
            fold.apply(stored)
    assert (fold.counters, fold.run_sequence) == (world.truth.counters, world.truth.run_sequence)
    assert fold.runs == world.truth.runs
