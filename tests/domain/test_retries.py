"""Which tasks are retried, when, and when retrying stops; and the timeout of a run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from runstream.domain.advance import advance, tasks_to_run
from runstream.domain.clocks import next_due
from runstream.domain.retries import MAX_BACKOFF, backoff, decide_retries
from runstream.domain.run import FailedAttempt, RunState, RunTaskStatus, created, evolve
from runstream.events.run import (
    RunEvent,
    RunFinished,
    RunPaused,
    RunResultSet,
    RunResumed,
    RunStarted,
    RunStopRequested,
    RunTaskRetried,
    RunTaskRetryDropped,
    RunTasksSkipped,
    RunTimedOut,
)
from runstream.events.run_config import Depend, Retry, RetryReason, RunConfig
from runstream.run_states import RunPhase, RunResult
from tests.factories import run_created

from .world import SECOND, config, task

AT = datetime(2026, 1, 1, tzinfo=UTC)
ALWAYS = Retry(2, 0, ("failure", "lost", "timeout"))
SLOWLY = Retry(2, 10 * SECOND, ("failure", "lost", "timeout"))


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def started(content: RunConfig) -> RunState:
    event = run_created(content.name, run_config="hash")
    return evolve(created("r", event, content, AT, lambda run, name: f"{run}-{name}"), RunStarted(), AT)


def failed(run: RunState, name: str, reason: RetryReason = "failure", **changes: object) -> RunState:
    """The run after the present attempt at the task failed and settled."""
    one = run.tasks[name]
    fields: dict[str, object] = {
        "status": RunTaskStatus.FAILED,
        "failure": reason,
        "timedout": reason == "timeout",
        "executor_task_id": f"{name}-{one.attempt}",
        "start_time": AT,
        "end_time": AT,
        **changes,
    }
    return replace(run, tasks={**run.tasks, name: replace(one, **fields)})


def told(run: RunState, events: Sequence[RunEvent], at: datetime = AT) -> RunState:
    for event in events:
        run = evolve(run, event, at)
    return run


def test_a_failed_task_is_retried_up_to_its_limit_and_then_fails_the_run() -> None:
    content = config(task("a", retry=ALWAYS))
    run = started(content)
    for attempt in (2, 3):
        run, events = advance(failed(run, "a"), content, AT)
        assert events == [RunTaskRetried("a", attempt, "failure", AT)]
        assert tasks_to_run(run, content, AT) == ["a"]
    run, events = advance(failed(run, "a"), content, AT)
    assert events[0] == RunResultSet(RunResult.FAILED)
    assert [attempt.executor_task_id for attempt in run.tasks["a"].attempts] == ["a-1", "a-2"]
    assert run.tasks["a"].executions == ("a-1", "a-2", "a-3")


@pytest.mark.parametrize("reason", ["failure", "lost", "timeout"])
def test_only_named_reasons_are_retried(reason: RetryReason) -> None:
    for on in (("failure",), ("lost",), ("timeout",)):
        content = config(task("a", retry=Retry(1, 0, on)))
        _, events = advance(failed(started(content), "a", reason), content, AT)
        assert isinstance(events[0], RunTaskRetried) == (reason in on)


def test_a_task_that_ignores_failure_is_tried_again_too() -> None:
    content = config(task("a", retry=ALWAYS, ignore_failure=True))
    _, events = advance(failed(started(content), "a"), content, AT)
    assert events == [RunTaskRetried("a", 2, "failure", AT)]


def test_children_see_the_last_attempt_only() -> None:
    content = config(task("a", retry=ALWAYS), task("b", Depend("a", ("on_failure",)), level=1))
    run, _ = advance(failed(started(content), "a"), content, AT)
    assert tasks_to_run(run, content, AT) == ["a"]
    assert run.tasks["b"].status is RunTaskStatus.NOT_STARTED
    for _ in range(2):
        run, _ = advance(failed(run, "a"), content, AT)
    assert tasks_to_run(run, content, AT) == ["b"]


def test_a_task_is_tried_again_although_another_has_failed_the_run() -> None:
    content = config(task("a", retry=ALWAYS), task("b"))
    both, _ = advance(failed(failed(started(content), "a"), "b"), content, AT)
    waiting, _ = advance(failed(started(config(task("a", retry=SLOWLY), task("b"))), "a"), content, AT)
    later, _ = advance(failed(waiting, "b"), content, AT)
    for run in (both, later):
        assert (run.result, run.tasks["a"].attempt) == (RunResult.FAILED, 2)
        assert tasks_to_run(run, content, after(10)) == ["a"]


def test_nothing_is_tried_again_when_another_task_has_failed_a_fail_fast_run() -> None:
    content = replace(config(task("a", retry=ALWAYS), task("b")), fail_fast=True)
    run = failed(failed(started(content), "a"), "b")
    run, events = advance(run, content, AT)
    assert RunResultSet(RunResult.FAILED) in events
    assert run.tasks["a"].status is RunTaskStatus.FAILED
    assert not run.tasks["a"].attempts


def test_a_task_between_attempts_has_failed_when_a_fail_fast_run_fails() -> None:
    undo = task("undo", Depend("a", ("on_failure",)), level=1)
    content = replace(config(task("a", retry=SLOWLY, save=True), task("b"), undo), fail_fast=True)
    once = failed(started(content), "a", "timeout", executor_task_open=True)
    run, _ = advance(once, content, AT)
    run, events = advance(failed(run, "b"), content, AT)
    assert events[:2] == [RunResultSet(RunResult.FAILED), RunTaskRetryDropped("a")]
    assert run.tasks["a"] == replace(once.tasks["a"], archives_pending=True)
    assert tasks_to_run(run, content, AT) == []
    stored = replace(run, tasks={**run.tasks, "a": replace(run.tasks["a"], archives_pending=False)})
    assert tasks_to_run(stored, content, AT) == ["undo"]


def test_an_attempt_that_was_given_out_goes_on_when_the_run_gets_its_result() -> None:
    content = config(task("a", retry=ALWAYS), task("b"))
    run, _ = advance(failed(started(content), "a"), content, AT)
    given = replace(run.tasks["a"], executor_task_id="a-2", executor_task_open=True)
    run, events = advance(failed(replace(run, tasks={**run.tasks, "a": given}), "b"), content, AT)
    assert events == [RunResultSet(RunResult.FAILED)]


def test_a_stop_ends_the_wait_for_an_attempt() -> None:
    content = config(task("a", retry=SLOWLY))
    run, _ = advance(failed(started(content), "a"), content, AT)
    run, events = advance(told(run, [RunStopRequested("")]), content, AT)
    assert events[:3] == [RunResultSet(RunResult.STOPPED), RunTasksSkipped(("a",)), RunFinished()]
    stopping = told(started(content), [RunStopRequested("")])
    assert not decide_retries(failed(stopping, "a"), content, AT)


def test_the_wait_doubles_and_is_respected() -> None:
    content = config(task("a", retry=SLOWLY))
    run, events = advance(failed(started(content), "a"), content, AT)
    assert events == [RunTaskRetried("a", 2, "failure", after(10))]
    assert tasks_to_run(run, content, after(9.999)) == []
    assert next_due(run, content) == after(10)
    assert tasks_to_run(run, content, after(10)) == ["a"]
    run, events = advance(failed(run, "a"), content, after(10))
    assert events == [RunTaskRetried("a", 3, "failure", after(30))]
    given = replace(run, tasks={"a": replace(run.tasks["a"], executor_task_id="a-3")})
    assert next_due(given, content) is None


def test_a_wait_is_never_longer_than_a_day() -> None:
    assert backoff(Retry(10, 3600 * SECOND, ("failure",)), 2) == timedelta(hours=1)
    assert backoff(Retry(10, 3600 * SECOND, ("failure",)), 8) == MAX_BACKOFF


def test_a_pause_puts_the_wait_off() -> None:
    content = config(task("a", retry=SLOWLY), task("b", retry=SLOWLY))
    run, _ = advance(failed(started(content), "a"), content, AT)
    run = told(run, [RunPaused()], after(4))
    assert next_due(run, content) is None
    run, _ = advance(failed(run, "b", end_time=after(5)), content, after(5))
    assert run.tasks["b"].not_before == after(15)
    run = told(run, [RunResumed()], after(104))
    assert run.tasks["a"].not_before == after(110)
    assert run.tasks["b"].not_before == after(15 + 99)
    assert next_due(run, content) == after(110)


def test_a_wait_that_was_over_before_the_pause_is_over_after_it() -> None:
    content = config(task("a", retry=SLOWLY))
    run, _ = advance(failed(started(content), "a"), content, AT)
    run = told(told(run, [RunPaused()], after(11)), [RunResumed()], after(100))
    assert tasks_to_run(run, content, after(100)) == ["a"]
    untold = FailedAttempt("x", "failure", False, None, None)
    run = replace(run, paused_at=after(5), tasks={"a": replace(run.tasks["a"], attempts=(untold,))})
    assert evolve(run, RunResumed(), after(105)).tasks["a"].not_before == after(110)


def test_a_run_that_takes_too_long_is_ended_and_has_failed() -> None:
    content = replace(config(task("a"), task("b", Depend("a", ("on_success",)), level=1)), run_timeout_interval=SECOND)
    run = started(content)
    assert next_due(run, content) == after(1)
    assert advance(run, content, after(0.999))[1] == []
    run, events = advance(run, content, after(1))
    assert events[:3] == [RunTimedOut(), RunResultSet(RunResult.FAILED), RunTasksSkipped(("a", "b"))]
    assert run.timedout
    assert run.phase is RunPhase.FINISHED
    assert next_due(run, content) is None


def test_its_time_does_not_count_while_it_is_paused_or_when_it_ends_anyway() -> None:
    content = replace(config(task("a")), run_timeout_interval=SECOND)
    paused = told(started(content), [RunPaused()], after(0.5))
    assert advance(paused, content, after(9))[1] == []
    resumed = told(paused, [RunResumed()], after(10))
    assert next_due(resumed, content) == after(10.5)
    stopped = told(started(content), [RunStopRequested("")])
    assert RunTimedOut() not in advance(stopped, content, after(9))[1]
    assert next_due(stopped, content) is None
    ended = failed(started(content), "a", executor_task_open=True)
    assert advance(ended, content, after(9))[1] == [RunResultSet(RunResult.FAILED)]
    assert next_due(ended, content) is None
    assert next_due(evolve(ended, RunFinished(), AT), content) is None


def test_a_task_that_fails_when_the_time_is_up_is_not_tried_again() -> None:
    content = replace(config(task("a", retry=ALWAYS)), run_timeout_interval=SECOND)
    _, events = advance(failed(started(content), "a"), content, after(2))
    assert events[0] == RunResultSet(RunResult.FAILED)


def test_what_failed_in_an_earlier_run_is_not_tried_again_and_keeps_nothing_from_it() -> None:
    content = config(task("old", retry=ALWAYS), task("a", retry=ALWAYS))
    run = failed(failed(started(content), "old", kept=True), "a")
    assert advance(run, content, AT)[1] == [RunTaskRetried("a", 2, "failure", AT)]
