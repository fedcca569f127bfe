"""Why a run waits, derived from its state alone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from runstream.domain.executor import Offer
from runstream.domain.run import RunState, RunTaskStatus, evolve
from runstream.domain.why import MAX_REASONS, View, WaitReason, ended, explain
from runstream.events.run import (
    RunCancelled,
    RunFinished,
    RunPaused,
    RunResultSet,
    RunStopRequested,
    RunTaskApprovalRequested,
    RunTimedOut,
)
from runstream.events.run_config import Container, Depend, RunConfig, Runtime
from runstream.run_states import RunPhase, RunResult

from .test_advance import AT, ON_SUCCESS, run_of
from .world import config, offer, task

DONE, FAILED, BUSY = RunTaskStatus.SUCCESS, RunTaskStatus.FAILED, RunTaskStatus.RUNNING
CHAIN = config(task("a", save=True), task("b", ON_SUCCESS, level=1))


def view(run: RunState, *offers: Offer, first: RunState | None = None, before: int = 0, **changes: object) -> View:
    there = {one.executor_id: one for one in offers}
    plain = View(AT, first or run, before, there, {}, {}, {})
    return replace(plain, **changes)


def why(run: RunState, content: RunConfig, *offers: Offer, **changes: object) -> list[WaitReason]:
    return explain(run, content, view(run, *offers, **changes)).reasons  # type: ignore[arg-type]


def told(
    run: RunState, content: RunConfig, *offers: Offer, **changes: object
) -> list[tuple[str, tuple[str, ...], str]]:
    return [(one.code, one.tasks, one.message) for one in why(run, content, *offers, **changes)]


def with_task(run: RunState, name: str, **changes: object) -> RunState:
    return replace(run, tasks={**run.tasks, name: replace(run.tasks[name], **changes)})


def test_what_became_of_a_run_that_has_ended() -> None:
    run = run_of(CHAIN, a=DONE, b=DONE)
    finished = evolve(evolve(run, RunResultSet(RunResult.SUCCESS), AT), RunFinished(), AT)
    assert ended(finished).reasons[0].message == "it has ended: success"
    stopped = replace(finished, result=RunResult.STOPPED, reason="run 9 took its place")
    assert ended(stopped).reasons[0].message == "it has ended: stopped (run 9 took its place)"
    late = replace(finished, result=RunResult.FAILED, timedout=True)
    assert ended(late).reasons[0].message == "it has ended: failed (it timed out)"
    queued = run_of(CHAIN, phase=RunPhase.QUEUED)
    assert ended(evolve(queued, RunCancelled(""), AT)).reasons[0].message == "it was cancelled"
    assert ended(evolve(queued, RunCancelled("no"), AT)).reasons[0].message == "it was cancelled: no"
    broken = replace(queued, phase=RunPhase.SETUP_ERROR, setup_errors=("one", "two"), tasks={})
    found = ended(broken)
    assert (found.phase, found.reasons[0].code) == (RunPhase.SETUP_ERROR, "setupError")
    assert found.reasons[0].details == {"errors": ["one", "two"]}


def test_a_queued_run_waits_for_the_first_of_its_group() -> None:
    run = run_of(CHAIN, phase=RunPhase.QUEUED)
    assert told(run, CHAIN) == [("deciding", (), "it is its turn: it is about to start")]
    paused = evolve(run, RunPaused(), AT)
    assert [one.code for one in why(paused, CHAIN)] == ["paused"]
    first = replace(run_of(CHAIN), id="first", counter=3)
    for state, word in (
        (first, "is running"),
        (evolve(first, RunPaused(), AT), "is paused"),
        (evolve(first, RunStopRequested(""), AT), "is being stopped"),
        (replace(first, phase=RunPhase.QUEUED), "is about to start"),
    ):
        assert told(run, CHAIN, first=state, before=1) == [("group", (), f"run /project/p/3 of its group {word}")]
    (reason,) = why(run, CHAIN, first=first, before=3)
    assert reason.message == "run /project/p/3 of its group is running, and 2 more runs before it"
    assert [one.code for one in why(paused, CHAIN, first=first, before=1)] == ["paused", "group"]


def test_a_task_waits_for_those_before_it_and_for_what_they_hand_over() -> None:
    run = with_task(run_of(CHAIN, a=BUSY), "a", executor_task_id="t1", executor_task_open=True)
    assert told(run, CHAIN, executors={"t1": "e1"}) == [
        ("running", ("a",), "it runs at executor e1"),
        ("dependency", ("b",), "it waits for a (running)"),
    ]
    storing = with_task(run_of(CHAIN, a=DONE), "a", archives_pending=True)
    assert told(storing, CHAIN) == [("archives", ("b",), "what a handed over is not stored yet")]
    waiting = evolve(run_of(CHAIN), RunTaskApprovalRequested("a"), AT)
    assert told(waiting, CHAIN) == [
        ("approval", ("a",), "it waits for approval"),
        ("dependency", ("b",), "it waits for a (waits for approval)"),
    ]
    many = config(*(task(f"t{n}") for n in range(7)), task("z", *(Depend(f"t{n}", ()) for n in range(7)), level=1))
    assert why(run_of(many), many)[-1].message.endswith("t4 (not started) and 2 more")


def test_a_task_that_was_given_out_and_is_not_started() -> None:
    run = with_task(run_of(config(task("a"))), "a", executor_task_id="t1", executor_task_open=True)
    here = {"executors": {"t1": "e1"}, "loads": {"e1": 2}}
    assert told(run, config(task("a")), offer("e1", 2), **here)[0][2] == (
        "executor e1 (it has 2 of 2 tasks) has not started it yet"
    )
    assert told(run, config(task("a")), offer("e1", 0), **here)[0][2] == "executor e1 has not started it yet"
    assert told(run, config(task("a")), **here)[0][2] == "executor e1 has not started it yet"


def test_the_next_attempt_waits_and_a_pause_holds_everything_up() -> None:
    content = config(task("a"))
    later = AT + timedelta(minutes=1)
    run = with_task(run_of(content), "a", attempt=2, not_before=later)
    (reason,) = why(run, content)
    assert (reason.code, reason.details) == ("backoff", {"attempt": 2, "not_before": later.isoformat()})
    assert told(run, content, at=later)[0][0] == "noExecutor"
    paused = evolve(run_of(content), RunPaused(), AT)
    assert told(paused, content) == [
        ("paused", (), f"it is paused since {AT:%Y-%m-%d %H:%M:%S} UTC: nothing more of it starts until it is resumed")
    ]


POD = Runtime("pod", "arm64", (Container("image", {}, "", True, "", ()),), {"gpu": "yes"})


def test_executors_that_do_not_fit_say_what_they_lack() -> None:
    content = config(task("a", runtime=POD), task("b", runtime=POD))
    run = run_of(content)
    assert told(run, content) == [("noExecutor", ("a", "b"), "there is no executor")]
    (reason,) = why(run, content, offer("e1"), replace(offer("e2"), labels={"gpu": "yes"}))
    assert (reason.code, reason.tasks) == ("noExecutorFits", ("a", "b"))
    common = "does not allow privileged containers and has no architecture arm64"
    assert reason.message == (
        "no executor fits (needed: privileged containers (image), architecture arm64, label gpu=yes): "
        f"e1 cannot run containers: it has no engine (executor.engine) and {common} and has no label gpu; "
        f"e2 cannot run containers: it has no engine (executor.engine) and {common}"
    )
    assert reason.details["requires"] == {"type": "pod", "arch": "arm64", "labels": {"gpu": "yes"}, "privileged": True}


@pytest.mark.parametrize(
    ("ahead", "message"),
    [
        (0, "the executor that fits is full: e1 (2 of 2 tasks)"),
        (1, "the executor that fits is full: e1 (2 of 2 tasks); 1 task comes before it"),
        (3, "the executor that fits is full: e1 (2 of 2 tasks); 3 tasks come before it"),
    ],
)
def test_full_executors_and_how_many_come_before(ahead: int, message: str) -> None:
    content = config(task("a"))
    found = why(run_of(content), content, offer("e1", 2), loads={"e1": 2}, ahead={"a": ahead})
    assert [(one.code, one.message, one.details["before"]) for one in found] == [("executorsFull", message, ahead)]


def test_slots_reserved_by_another_scheduler() -> None:
    """Their scheduler is about to take it."""
    content = config(task("a"))
    (reason,) = why(run_of(content), content, offer("e1", 2), loads={"e1": 1}, ahead={"a": 1})
    assert (reason.code, reason.message) == ("turn", "there is room, but 1 task comes before it: e1 (1 of 2 tasks)")
    assert reason.details["before"] == 1


def test_several_executors_that_are_full() -> None:
    content = config(task("a"))
    found = why(run_of(content), content, offer("e1", 2), offer("e2", 1), loads={"e1": 2, "e2": 1})
    assert found[0].message == "the executors that fit are full: e1 (2 of 2 tasks), e2 (1 of 1 tasks)"


def test_what_is_about_to_be_decided() -> None:
    content = config(task("a"))
    (reason,) = why(run_of(content), content, offer("e1", 0), loads={"e1": 7})
    assert (reason.code, reason.message) == ("deciding", "it is about to be given to an executor")
    assert reason.details["executors"] == {"e1": "7 tasks"}
    skipped = run_of(CHAIN, a=FAILED)
    assert told(skipped, CHAIN) == [("deciding", ("b",), "the scheduler is about to decide")]
    over = run_of(CHAIN, a=DONE, b=DONE)
    assert told(over, CHAIN) == [("deciding", (), "its tasks have ended: it is about to be finished")]
    storing = with_task(over, "a", executor_task_open=True)
    assert told(storing, CHAIN) == [("storing", ("a",), "logs and archives of a are being stored")]


def test_a_run_that_is_stopped_waits_for_its_tasks() -> None:
    run = with_task(run_of(CHAIN, a=BUSY, b=RunTaskStatus.SKIPPED), "a", executor_task_id="t1")
    stopping = evolve(run, RunStopRequested("run 9 took its place"), AT)
    first, second = told(stopping, CHAIN, executors={"t1": "e1"})
    assert first == ("stopping", ("a",), "it was asked to stop (run 9 took its place): a has not ended yet")
    assert second[0] == "running"
    timed_out = evolve(run_of(CHAIN, a=BUSY, b=BUSY), RunTimedOut(), AT)
    assert told(timed_out, CHAIN)[0][2] == "its time is up: a, b have not ended yet"
    over = evolve(run_of(CHAIN, a=DONE, b=DONE), RunStopRequested(""), AT)
    assert told(over, CHAIN)[0] == ("stopping", (), "it was asked to stop: its tasks have ended")


def test_there_is_an_end_to_reasons() -> None:
    content = config(*(task(f"t{n}", needs_approval=True) for n in range(MAX_REASONS + 5)))
    run = run_of(content)
    for name in run.tasks:
        run = evolve(run, RunTaskApprovalRequested(name), AT)
    (reason,) = why(run, content)
    assert len(reason.tasks) == MAX_REASONS + 5
    later = {n: AT + timedelta(seconds=n + 1) for n in range(MAX_REASONS + 5)}
    waiting = run_of(content)
    for n, at in later.items():
        waiting = with_task(waiting, f"t{n}", not_before=at, approved=True)
    found = explain(waiting, content, view(waiting))
    assert (len(found.reasons), found.omitted) == (MAX_REASONS, 5)
