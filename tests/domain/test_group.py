"""What a run does about its place in its group."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from runstream.domain.group import Neighbour, Place, decide_in_group
from runstream.domain.run import RunState
from runstream.events.run import RunCancelled, RunStarted, RunStopRequested
from runstream.events.run_config import Concurrency
from runstream.run_states import RunPhase

from .test_advance import run_of
from .world import config, task

QUEUE, SKIP = Concurrency("queue", 0), Concurrency("skip", 0)
OLD = Neighbour("old", 3, "queue")
OWN = Neighbour("r", 4, "queue")
NEW = Neighbour("new", 5, "cancel_waiting")
NEWEST = Neighbour("newest", 6, "cancel_running")
ALONE = Place(first=OWN, earlier=None, waiting=0, replaced_by=None, stopped_by=None)
BEHIND = replace(ALONE, first=OLD, earlier=OLD)


def run(phase: RunPhase = RunPhase.QUEUED) -> RunState:
    return replace(run_of(config(task("a")), phase=phase), id="r")


def test_the_first_starts_and_the_others_wait() -> None:
    assert decide_in_group(run(), QUEUE, ALONE) == (RunStarted(),)
    assert decide_in_group(run(), QUEUE, BEHIND) == ()
    assert decide_in_group(run(RunPhase.RUNNING), QUEUE, ALONE) == ()
    assert decide_in_group(run(RunPhase.CANCELLED), QUEUE, ALONE) == ()


def test_a_paused_run_keeps_its_place_and_does_not_start() -> None:
    paused = replace(run(), paused_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert decide_in_group(paused, QUEUE, ALONE) == ()
    assert decide_in_group(paused, QUEUE, replace(ALONE, replaced_by=NEW)) != ()


def test_a_waiting_run_gives_its_place_to_a_newer_one_that_takes_it() -> None:
    cancelled = (RunCancelled("run /project/p/5 took its place (concurrency cancel_waiting)"),)
    assert decide_in_group(run(), QUEUE, replace(BEHIND, replaced_by=NEW)) == cancelled
    assert decide_in_group(run(), SKIP, replace(ALONE, replaced_by=NEW)) == cancelled
    assert decide_in_group(run(RunPhase.RUNNING), QUEUE, replace(ALONE, replaced_by=NEW)) == ()


def test_a_running_one_is_stopped_once_for_a_newer_one_that_asks_for_it() -> None:
    place = replace(ALONE, replaced_by=NEWEST, stopped_by=NEWEST)
    asked = (RunStopRequested("run /project/p/6 took its place (concurrency cancel_running)"),)
    assert decide_in_group(run(RunPhase.RUNNING), QUEUE, place) == asked
    assert decide_in_group(replace(run(RunPhase.RUNNING), stop=True), QUEUE, place) == ()


def test_skip_gives_way_to_runs_of_its_name_alone() -> None:
    assert decide_in_group(run(), SKIP, BEHIND) == (RunCancelled("run /project/p/3 has not ended (concurrency skip)"),)
    assert decide_in_group(run(), SKIP, replace(BEHIND, earlier=None)) == ()
    assert decide_in_group(run(), SKIP, ALONE) == (RunStarted(),)


@pytest.mark.parametrize(
    ("bound", "waiting", "reason"),
    [
        (1, 0, None),
        (1, 1, "1 run waits behind run /project/p/3 already (max_waiting 1)"),
        (2, 1, None),
        (2, 3, "3 runs wait behind run /project/p/3 already (max_waiting 2)"),
        (0, 9, None),
    ],
)
def test_no_more_wait_than_the_bound_allows(bound: int, waiting: int, reason: str | None) -> None:
    decided = decide_in_group(run(), Concurrency("queue", bound), replace(BEHIND, waiting=waiting))
    assert decided == (() if reason is None else (RunCancelled(reason),))
