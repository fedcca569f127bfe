"""An executor task starts at most once and ends once, whatever order its events come in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from runstream.domain.execution import with_executor_task
from runstream.domain.executor_task import (
    ExecutorTask,
    assigned,
    decide_abandoned,
    decide_failed,
    decide_lost,
    decide_report,
    decide_start,
    decide_stop,
    decide_timeout,
    evolve,
)
from runstream.domain.run import RunTaskStatus
from runstream.events.executor_task import (
    ExecutorTaskArchiveStored,
    ExecutorTaskCancelled,
    ExecutorTaskEvent,
    ExecutorTaskFinished,
    ExecutorTaskInterrupted,
    ExecutorTaskLogLost,
    ExecutorTaskLogStored,
    ExecutorTaskLost,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStarted,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
    ExecutorTaskStepTimedOut,
    ExecutorTaskStopRequested,
    ExecutorTaskTimedOut,
)
from tests.factories import task_assigned

from .test_advance import run_of
from .world import config, task

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)
ASSIGNED = task_assigned("e", "r", "r-a", task="a", run_config="hash", steps=2)
SUCCESS, FAILED = ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED


def after(*events: ExecutorTaskEvent) -> ExecutorTask:
    state = assigned("t", ASSIGNED)
    for event in events:
        state = evolve(state, event)
    return state


RUNNING = (ExecutorTaskStarted(AT), ExecutorTaskSetupFinished(AT, SUCCESS), ExecutorTaskStepStarted(0, AT))


def test_it_starts_once() -> None:
    assert decide_start(after(), AT) == (ExecutorTaskStarted(AT),)
    assert decide_start(after(ExecutorTaskStarted(AT)), AT) == ()
    assert evolve(after(), ASSIGNED) == after()


def test_asked_to_stop_or_timed_out_before_it_started_it_is_cancelled() -> None:
    for event in (ExecutorTaskStopRequested(), ExecutorTaskTimedOut()):
        assert decide_start(after(event), AT) == (ExecutorTaskCancelled(AT),)
    cancelled = after(ExecutorTaskStopRequested(), ExecutorTaskCancelled(AT))
    assert not cancelled.open
    assert cancelled.settled


def test_stop_and_timeout_are_asked_once_and_only_of_an_open_task() -> None:
    assert decide_stop(after()) == (ExecutorTaskStopRequested(),)
    assert decide_stop(after(ExecutorTaskStopRequested())) == ()
    assert decide_timeout(after()) == (ExecutorTaskTimedOut(),)
    assert decide_timeout(after(ExecutorTaskTimedOut())) == ()
    ended = after(*RUNNING, ExecutorTaskFinished(AT, SUCCESS, ""))
    assert decide_stop(ended) == ()
    assert decide_timeout(ended) == ()


def test_a_lost_task_fails_with_its_open_steps_and_refuses_late_reports() -> None:
    (lost,) = decide_lost(after(*RUNNING), LATER, "executor lost")
    state = evolve(after(*RUNNING), lost)
    assert (state.phase, state.end_time, state.fail_error) == (FAILED, LATER, "executor lost")
    assert (state.steps[0].phase, state.steps[0].end_time) == (FAILED, LATER)
    assert state.steps[1].phase is ExecutorTaskPhase.NOT_STARTED
    assert state.setup_step.phase is SUCCESS
    assert state.settled
    assert decide_lost(state, LATER, "again") == ()
    late = (ExecutorTaskStepFinished(0, LATER, SUCCESS, 0), ExecutorTaskFinished(LATER, SUCCESS, ""))
    assert decide_report(state, late) == ()
    assert decide_report(state, (*late, ExecutorTaskLogStored(0))) == (ExecutorTaskLogStored(0),)
    assert decide_report(after(*RUNNING), late) == late


def test_a_lost_executor_settles_what_had_ended_without_changing_how() -> None:
    ended = after(*RUNNING, ExecutorTaskStepFinished(0, AT, SUCCESS, 0), ExecutorTaskFinished(AT, SUCCESS, ""))
    assert not ended.settled
    state = evolve(ended, ExecutorTaskLost(LATER, "executor lost"))
    assert (state.phase, state.end_time, state.settled) == (SUCCESS, AT, True)


def test_it_is_settled_once_every_log_is_stored_or_lost() -> None:
    state = after(*RUNNING, ExecutorTaskStepFinished(0, AT, FAILED, 1), ExecutorTaskFinished(AT, FAILED, ""))
    state = evolve(state, ExecutorTaskLogStored(None))
    assert not state.settled
    assert evolve(state, ExecutorTaskLogLost(0)).settled
    stored = evolve(state, ExecutorTaskArchiveStored(0, ("'x' selects nothing",))).steps[0]
    assert (stored.archive_stored, stored.warnings) == (True, ("'x' selects nothing",))


def test_a_restarted_executor_fails_what_was_running() -> None:
    assert decide_abandoned(after(), LATER) == ()
    events = decide_abandoned(after(ExecutorTaskStarted(AT)), LATER)
    assert events[:2] == (ExecutorTaskInterrupted(LATER), ExecutorTaskSetupFinished(LATER, FAILED))
    events = decide_abandoned(after(*RUNNING), LATER)
    assert events[:2] == (ExecutorTaskInterrupted(LATER), ExecutorTaskStepFinished(0, LATER, FAILED, None))
    assert isinstance(events[-1], ExecutorTaskFinished)


def test_a_task_that_cannot_be_handled_fails_once_whether_it_has_begun_or_not() -> None:
    for begun in (after(), after(*RUNNING)):
        events = decide_failed(begun, LATER, "it cannot be handled")
        ended = begun
        for event in events:
            ended = evolve(ended, event)
        assert (ended.phase, ended.fail_error) == (FAILED, "it cannot be handled")
        assert decide_failed(ended, LATER, "again") == ()


def test_a_step_that_the_executor_of_a_lost_task_found_is_still_taken() -> None:
    lost = after(ExecutorTaskStarted(AT), ExecutorTaskSetupFinished(AT, SUCCESS))
    for event in decide_lost(lost, LATER, "executor lost"):
        lost = evolve(lost, event)
    found = (ExecutorTaskStepStarted(0, AT), ExecutorTaskStepFinished(0, LATER, FAILED, None))
    assert decide_report(lost, found) == found
    assert decide_report(lost, (ExecutorTaskStepFinished(0, LATER, SUCCESS, 0),)) == ()
    assert decide_report(evolve(evolve(lost, found[0]), found[1]), found) == ()


def test_a_step_before_the_first_is_none() -> None:
    with pytest.raises(IndexError):
        evolve(after(*RUNNING), ExecutorTaskStepStarted(-1, AT))


def test_how_it_failed() -> None:
    failed = ExecutorTaskFinished(LATER, FAILED, "")
    assert after(*RUNNING).failure == ""
    assert after(*RUNNING, ExecutorTaskFinished(LATER, SUCCESS, "")).failure == ""
    assert after(*RUNNING, failed).failure == "failure"
    assert after(*RUNNING, failed, ExecutorTaskLost(LATER, "gone")).failure == "failure"
    assert after(*RUNNING, *decide_abandoned(after(*RUNNING), LATER)).failure == "lost"
    assert after(*RUNNING, ExecutorTaskLost(LATER, "gone")).failure == "lost"
    assert after(*RUNNING, ExecutorTaskStepTimedOut(0, LATER, "timeout"), failed).failure == "timeout"
    assert after(*RUNNING, ExecutorTaskTimedOut(), ExecutorTaskLost(LATER, "gone")).failure == "timeout"


def test_the_run_task_follows_but_never_goes_back() -> None:
    content = config(task("a", steps=2, save=True))
    run = with_executor_task(run_of(content), after(*RUNNING))
    assert run.tasks["a"].status is RunTaskStatus.RUNNING
    stored = (ExecutorTaskStepFinished(0, AT, SUCCESS, 0), ExecutorTaskFinished(AT, SUCCESS, ""))
    ended = with_executor_task(run, after(*RUNNING, *stored))
    assert ended.tasks["a"].status is RunTaskStatus.SUCCESS
    assert ended.tasks["a"].archives_pending
    assert not ended.tasks["a"].done
    assert with_executor_task(ended, after(*RUNNING)).tasks["a"].status is RunTaskStatus.SUCCESS
    timed_out = after(*RUNNING, ExecutorTaskTimedOut(), ExecutorTaskFinished(AT, FAILED, ""))
    assert with_executor_task(run, timed_out).tasks["a"].timedout
    lost = with_executor_task(run, replace(after(*RUNNING, *stored), lost=True))
    assert not lost.tasks["a"].archives_pending


def test_a_step_that_passes_a_limit_times_the_task_out() -> None:
    state = after(*RUNNING, ExecutorTaskStepTimedOut(0, LATER, "no_output"))
    assert (state.timedout, state.steps[0].timedout, state.steps[1].timedout) == (True, "no_output", "")
    assert state.open
