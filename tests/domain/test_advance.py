"""How a run moves on, where the recorded cases leave it open: on_failure, archives, results, the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from runstream.domain.advance import advance, advance_run, advance_run_tasks, tasks_to_run
from runstream.domain.run import Run, RunPhase, RunTaskStatus, created
from runstream.events.run import (
    RunArchived,
    RunCreated,
    RunFinished,
    RunResult,
    RunResultSet,
    RunTaskApprovalRequested,
    RunTasksCancelled,
    RunTasksSkipped,
)
from runstream.events.run_config import Depend, RunConfig

from .world import config, task

AT = datetime(2026, 1, 1, tzinfo=UTC)
ON_FAILURE = Depend("a", ("on_failure",))
ON_SUCCESS = Depend("a", ("on_success",))


def run_of(content: RunConfig, *, phase: RunPhase = RunPhase.RUNNING, **statuses: RunTaskStatus) -> Run:
    event = RunCreated(content.name, "/project/p/branch/main", "hash", {}, (), "")
    run = replace(created("r", event, content, AT, lambda run, name: f"{run}-{name}"), phase=phase)
    tasks = {name: replace(run.tasks[name], status=status) for name, status in statuses.items()}
    return replace(run, tasks={**run.tasks, **tasks})


def test_on_failure_children_run_and_on_success_children_are_skipped() -> None:
    content = config(task("a"), task("b", ON_FAILURE), task("c", ON_SUCCESS), task("d", Depend("c", ("on_skipped",))))
    run, events = advance(run_of(content, a=RunTaskStatus.FAILED), content, AT)
    assert events == [RunResultSet(RunResult.FAILED), RunTasksSkipped(("c",))]
    assert tasks_to_run(run, content, AT) == ["b", "d"]


def test_a_parent_is_done_only_when_its_archives_are_stored() -> None:
    content = config(task("a", save=True), task("b", ON_SUCCESS))
    run = run_of(content, a=RunTaskStatus.SUCCESS)
    waiting = replace(run, tasks={**run.tasks, "a": replace(run.tasks["a"], archives_pending=True)})
    assert tasks_to_run(waiting, content, AT) == []
    assert advance_run_tasks(waiting, content) == []
    assert tasks_to_run(run, content, AT) == ["b"]


def test_a_chain_of_skips_is_followed_to_its_end() -> None:
    content = config(task("a"), task("b", ON_FAILURE), task("c", Depend("b", ("on_success",))))
    run, events = advance(run_of(content, a=RunTaskStatus.SUCCESS), content, AT)
    assert [event for event in events if isinstance(event, RunTasksSkipped)] == [
        RunTasksSkipped(("b",)),
        RunTasksSkipped(("c",)),
    ]
    assert run.result is RunResult.SUCCESS
    assert run.archived


def test_failed_goes_before_success_and_success_before_stopped() -> None:
    content = config(task("a"), task("b", ignore_failure=True))
    failed = run_of(content, a=RunTaskStatus.FAILED, b=RunTaskStatus.SUCCESS)
    assert advance_run(failed, content) == [RunResultSet(RunResult.FAILED)]
    ignored = run_of(content, a=RunTaskStatus.SUCCESS, b=RunTaskStatus.FAILED)
    assert advance_run(replace(ignored, stop=True), content) == [RunResultSet(RunResult.SUCCESS)]
    stopped = run_of(content, a=RunTaskStatus.RUNNING)
    assert advance_run(replace(stopped, stop=True), content) == [RunResultSet(RunResult.STOPPED)]
    assert advance_run(stopped, content) == []


def test_a_run_without_tasks_succeeds() -> None:
    run, events = advance(run_of(config()), config(), AT)
    assert events == [RunResultSet(RunResult.SUCCESS), RunFinished(), RunArchived()]
    assert run.phase is RunPhase.FINISHED


def test_a_run_with_a_result_waits_for_what_still_runs() -> None:
    content = config(task("a"))
    run = replace(run_of(content, a=RunTaskStatus.RUNNING), result=RunResult.STOPPED)
    assert advance_run(run, content) == []
    ended = replace(run.tasks["a"], status=RunTaskStatus.STOPPED, executor_task_open=True)
    assert advance_run(replace(run, tasks={"a": ended}), content) == []


def test_roots_are_cancelled_once_the_result_is_set_but_not_what_was_given_out() -> None:
    content = config(task("a"), task("b"), task("c"))
    run = run_of(content, a=RunTaskStatus.FAILED)
    run = replace(
        run, result=RunResult.FAILED, tasks={**run.tasks, "b": replace(run.tasks["b"], executor_task_id="given")}
    )
    assert advance_run_tasks(run, content) == [RunTasksCancelled(("c",))]
    assert tasks_to_run(run, content, AT) == ["c"]


def test_stop_skips_what_was_not_given_out() -> None:
    content = config(task("a"), task("b", needs_approval=True), task("c", Depend("b", ("on_success",))))
    run = replace(run_of(content), stop=True, result=RunResult.STOPPED)
    run = replace(run, tasks={**run.tasks, "a": replace(run.tasks["a"], executor_task_id="given")})
    assert advance_run_tasks(run, content) == [RunTasksSkipped(("b", "c"))]


def test_a_task_waits_for_approval_once() -> None:
    content = config(task("a", needs_approval=True))
    run, events = advance(run_of(content), content, AT)
    assert events == [RunTaskApprovalRequested("a")]
    assert tasks_to_run(run, content, AT) == []
    assert advance(run, content, AT)[1] == []
    approved = replace(run, tasks={"a": replace(run.tasks["a"], approved=True, waiting_approval=False)})
    assert tasks_to_run(approved, content, AT) == ["a"]


def test_a_queued_run_gives_out_nothing_and_an_ended_one_is_archived_once() -> None:
    content = config(task("a"))
    queued = run_of(content, phase=RunPhase.QUEUED)
    assert advance(queued, content, AT)[1] == []
    assert tasks_to_run(queued, content, AT) == []
    cancelled = run_of(content, phase=RunPhase.CANCELLED)
    archived, events = advance(cancelled, content, AT)
    assert events == [RunArchived()]
    assert advance(archived, content, AT)[1] == []


def test_a_task_that_its_when_skips_is_left_alone() -> None:
    content = config(task("a", skip=True), task("b", Depend("a", ("on_skipped",))))
    run = run_of(content, a=RunTaskStatus.NOT_STARTED)
    assert advance_run_tasks(run, content) == []
    assert tasks_to_run(run, content, AT) == []
    assert tasks_to_run(run_of(content), content, AT) == ["b"]
