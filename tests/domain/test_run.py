"""What a run becomes by restarts, pauses, timeouts and further attempts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from runstream.domain.execution import with_executor_task
from runstream.domain.executor_task import assigned
from runstream.domain.executor_task import evolve as evolve_executor_task
from runstream.domain.run import FailedAttempt, RestartOrigin, RunState, RunTaskStatus, created, evolve
from runstream.events.executor_task import (
    ExecutorTaskFinished,
    ExecutorTaskLogStored,
    ExecutorTaskPhase,
    ExecutorTaskStarted,
)
from runstream.events.run import (
    RunCancelled,
    RunPaused,
    RunRestarted,
    RunResumed,
    RunStarted,
    RunStopRequested,
    RunTaskAnnotated,
    RunTaskApprovalRequested,
    RunTaskLogDeleted,
    RunTaskRetried,
    RunTaskRetryDropped,
    RunTasksCancelled,
    RunTimedOut,
)
from runstream.run_states import RunPhase
from tests.factories import run_created, task_assigned, task_kept

from .world import config, task

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = AT + timedelta(seconds=90)
GROUP = "/project/p/branch/main"
CONTENT = replace(config(task("a", save=True), task("b")), priority=7)


def new_run() -> RunState:
    event = run_created(group=GROUP, run_config="hash", request="digest")
    return created("r", event, CONTENT, AT, lambda run, name: f"{run}-{name}")


def failed_attempt(number: int, executor_task: str) -> list[RunState]:
    """The run after each event of an attempt at task a that fails, before its log is stored."""
    run = replace(new_run(), phase=RunPhase.RUNNING)
    event = task_assigned("e", "r", "r-a", task="a", run_config="hash", group=GROUP, attempt=number)
    state = assigned(executor_task, event)
    states = [with_executor_task(run, state)]
    for happened in (ExecutorTaskStarted(AT), ExecutorTaskFinished(LATER, ExecutorTaskPhase.FAILED, "")):
        state = evolve_executor_task(state, happened)
        states.append(with_executor_task(states[-1], state))
    return states


def test_it_begins_with_what_was_asked() -> None:
    assert (new_run().priority, new_run().request, new_run().restart) == (7, "digest", None)


def test_a_restart_keeps_tasks_as_they_were() -> None:
    kept = task_kept(
        "a",
        "old-a",
        "old-task",
        attempt=2,
        annotations={"n": "1"},
        approver="user:ada",
        approved_at=AT,
        start_time=AT,
        end_time=LATER,
    )
    run = evolve(new_run(), RunRestarted("old", "chosen", ("b",), True, False, (kept,)), AT)
    assert run.restart == RestartOrigin("old", "chosen", ("b",), True, False)
    one = run.tasks["a"]
    assert (one.id, one.status, one.executor_task_id, one.attempt) == ("old-a", RunTaskStatus.SUCCESS, "old-task", 2)
    assert (one.approved, one.approvers, one.start_time, one.end_time) == (True, ("user:ada",), AT, LATER)
    assert (one.annotations, one.approved_at, one.kept) == ({"n": "1"}, AT, True)
    assert one.executions == ()
    assert one.done
    assert run.tasks["b"] == new_run().tasks["b"]


def test_what_is_noted_replaces_what_was() -> None:
    run = evolve(new_run(), RunTaskAnnotated("a", {"ticket": "1", "by": "ada"}), AT)
    assert evolve(run, RunTaskAnnotated("a", {"ticket": "2"}), AT).tasks["a"].annotations == {"ticket": "2"}


def test_a_pause_is_counted() -> None:
    run = evolve(new_run(), RunPaused(), AT)
    assert run.paused_at == AT
    run = evolve(run, RunResumed(), LATER)
    assert (run.paused_at, run.paused_for) == (None, 90_000_000_000)
    assert evolve(run, RunResumed(), LATER) == run


def test_a_pause_before_the_start_counts_for_nothing() -> None:
    run = evolve(evolve(new_run(), RunPaused(), AT), RunResumed(), LATER)
    assert evolve(run, RunStarted(), LATER).paused_for == 0


def test_root_tasks_that_did_not_start_are_cancelled() -> None:
    run = evolve(new_run(), RunTasksCancelled(("b",)), AT)
    assert (run.tasks["a"].status, run.tasks["b"].status) == (RunTaskStatus.NOT_STARTED, RunTaskStatus.CANCELLED)


def test_each_way_to_end_a_run_records_its_reason() -> None:
    waiting = evolve(new_run(), RunTaskApprovalRequested("b"), AT)
    for event, reason, timedout in ((RunStopRequested("a newer run"), "a newer run", False), (RunTimedOut(), "", True)):
        stopped = evolve(waiting, event, LATER)
        assert (stopped.stop, stopped.reason, stopped.timedout) == (True, reason, timedout)
        assert not stopped.tasks["b"].waiting_approval
    cancelled = evolve(new_run(), RunCancelled("a newer run"), LATER)
    assert (cancelled.phase, cancelled.reason) == (RunPhase.CANCELLED, "a newer run")


def test_another_attempt_begins_anew_and_the_earlier_one_is_kept() -> None:
    run = failed_attempt(1, "t1")[-1]
    assert (run.tasks["a"].status, run.tasks["a"].unsettled) == (RunTaskStatus.FAILED, True)
    assert run.tasks["a"].executions == ("t1",)
    run = evolve(run, RunTaskRetried("a", 2, "failure", LATER), LATER)
    one = run.tasks["a"]
    assert one.executions == ("t1",)
    assert one.attempts == (FailedAttempt("t1", "failure", open=True, start_time=AT, end_time=LATER),)
    assert (one.status, one.attempt, one.not_before) == (RunTaskStatus.NOT_STARTED, 2, LATER)
    assert (one.executor_task_id, one.start_time, one.end_time) == ("", None, None)
    assert one.unsettled


def test_a_deleted_log_changes_nothing() -> None:
    assert evolve(new_run(), RunTaskLogDeleted("a", 1, 0), AT) == new_run()


def test_a_dropped_retry_leaves_the_task_as_the_attempt_had() -> None:
    failed = failed_attempt(1, "t1")[-1]
    retried = evolve(failed, RunTaskRetried("a", 2, "failure", LATER), LATER)
    dropped = evolve(retried, RunTaskRetryDropped("a"), LATER).tasks["a"]
    # Its executor task is open: the next event of that says whether archives are missing.
    assert dropped == replace(failed.tasks["a"], failure="failure", archives_pending=True)


def test_leftovers_of_an_earlier_attempt_change_nothing_else() -> None:
    run = evolve(failed_attempt(1, "t1")[-1], RunTaskRetried("a", 2, "failure", LATER), LATER)
    run = evolve(run, RunTaskRetried("a", 3, "lost", LATER), LATER)
    event = task_assigned("e", "r", "r-a", task="a", run_config="hash", group=GROUP)
    state = assigned("t1", event)
    for happened in (
        ExecutorTaskStarted(AT),
        ExecutorTaskFinished(LATER, ExecutorTaskPhase.FAILED, ""),
        ExecutorTaskLogStored(None),
    ):
        state = evolve_executor_task(state, happened)
    after = with_executor_task(run, state)
    assert [attempt.open for attempt in after.tasks["a"].attempts] == [False, False]
    assert replace(after.tasks["a"], attempts=()) == replace(run.tasks["a"], attempts=())
    assert not after.tasks["a"].unsettled
