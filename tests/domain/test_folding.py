"""Events that are valid one by one, in any order: folding them raises one error, the one that leads to parking."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runstream.commits import DecodedCommit, Position, StoredCommit
from runstream.events.event import DomainEvent
from runstream.events.executor_task import (
    EXECUTOR_TASK_EVENTS,
    ExecutorTaskAssigned,
    ExecutorTaskLogStored,
    ExecutorTaskStarted,
    ExecutorTaskStepFinished,
)
from runstream.events.registry import EVENT_TYPES
from runstream.executor.executor import TaskTable
from runstream.folding import MAX_STEPS, UnfitCommitError, executor_task_of, fold_executor_task
from runstream.log.runs import fold_run
from runstream.projections.fold import PartitionFold
from runstream.steplogs.log_state import LogState
from runstream.subjects import Address, StepLogKey
from tests.domain.world import START, config, task
from tests.factories import run_created, task_assigned

ID = "8a5b0f2e-0000-4000-8000-000000000001"
KINDS = ("run", "task", "executor", "runconfig")

TEXTS = st.sampled_from(["", "a", "b", ID, "/project/p/branch/main", "\0", "\ud800", "x" * 3000])
NUMBERS = st.sampled_from([-(1 << 70), -1, 0, 1, 2, 1 << 31, 1 << 63, 1 << 80])
EVENTS = st.one_of([st.from_type(kind) for kind in EVENT_TYPES.values()])
OF_TASKS = st.one_of([st.from_type(kind) for kind in EXECUTOR_TASK_EVENTS])
ANY_ORDER = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def hostile_values() -> Iterator[None]:
    """Fields of events are hostile in this module alone: Hypothesis knows one strategy for a type."""
    for kind, hostile in ((datetime, st.datetimes(timezones=st.just(UTC))), (str, TEXTS), (int, NUMBERS)):
        st.register_type_strategy(kind, hostile)
    yield
    for kind, usual in ((datetime, st.datetimes()), (str, st.text()), (int, st.integers())):
        st.register_type_strategy(kind, usual)


def commits(kind: str, history: list[list[DomainEvent]]) -> list[StoredCommit]:
    address = Address(0, kind, ID, "e1" if kind == "task" else "")  # type: ignore[arg-type]
    return [
        StoredCommit(DecodedCommit(f"c{n}", address, n, START, "", "", tuple(events)), Position(1, 0, n), START)
        for n, events in enumerate(history, start=1)
    ]


@given(st.sampled_from(KINDS), st.lists(st.lists(EVENTS, min_size=1, max_size=3), max_size=5), st.booleans())
@ANY_ORDER
def test_a_partition_takes_any_events_or_parks_them(kind: str, history: list[list[DomainEvent]], begun: bool) -> None:
    fold = PartitionFold(0, 1, configs={"a": config(task("a")), "": config()})
    if begun and kind == "run":
        history = [[run_created("main", run_config="a")], *history]
    for stored in commits(kind, history):
        with contextlib.suppress(UnfitCommitError):
            fold.apply(stored)


@given(st.lists(st.lists(OF_TASKS, min_size=1, max_size=3), max_size=5))
@ANY_ORDER
def test_every_reader_folds_a_task_alike_or_leaves_it_unchanged(history: list[list[DomainEvent]]) -> None:
    stored = commits("task", [[assignment()], *history])
    assert executor_task_of(stored) is not None
    fate, table = LogState(StepLogKey(0, ID, "a", ID, ID, 0)), TaskTable()
    for one in stored:
        fate.apply(one)
        table.take_in(one)


@given(st.lists(st.lists(EVENTS, min_size=1, max_size=3), max_size=4))
@ANY_ORDER
def test_the_gateway_reads_a_run_or_says_that_it_cannot(history: list[list[DomainEvent]]) -> None:
    first = run_created("main", run_config="a")
    stored = commits("run", [[first], *history])
    with contextlib.suppress(UnfitCommitError):
        fold_run(stored[0].commit.address, first, config(task("a")), stored)


@pytest.mark.parametrize("step", [-1, 2, 1 << 40])
def test_an_unknown_step_does_not_fit(step: int) -> None:
    begun, finished = commits("task", [[assignment()], [ExecutorTaskStepFinished(step, START, "success", 0)]])  # type: ignore[arg-type]
    known = fold_executor_task(None, begun.commit)
    with pytest.raises(UnfitCommitError):
        fold_executor_task(known, finished.commit)
    assert executor_task_of([begun, finished]) == known


def test_steps_without_number_are_not_made() -> None:
    for steps in (MAX_STEPS + 1, 1 << 40):
        (endless,) = commits("task", [[assignment(steps=steps)]])
        with pytest.raises(UnfitCommitError, match=rf"steps must be at most {MAX_STEPS} \(got {steps}\)"):
            fold_executor_task(None, endless.commit)
    (many,) = commits("task", [[assignment(steps=MAX_STEPS)]])
    assert len(fold_executor_task(None, many.commit).steps) == MAX_STEPS


def assignment(steps: int = 2) -> ExecutorTaskAssigned:
    return task_assigned(run_id=ID, run_task_id=ID, task="a", run_config="a", steps=steps)


def test_a_log_is_followed_past_a_skipped_commit_whose_version_jumps() -> None:
    begun, other, ended = commits("task", [[assignment()], [ExecutorTaskStarted(START)], [ExecutorTaskLogStored(None)]])
    skipped = replace(other, commit=replace(other.commit, version=5, events=()))
    ended = replace(ended, commit=replace(ended.commit, version=6))
    state = LogState(StepLogKey(0, ID, "a", ID, ID, None))
    for one in (begun, skipped, ended):
        state.apply(one)
    assert state.settled
