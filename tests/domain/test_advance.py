"""How a run moves on, where the recorded cases leave it open: on_failure, archives, results, the end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from runstream.domain.advance import advance, advance_run, advance_run_tasks, tasks_to_run
from runstream.domain.run import FINAL_STATUSES, RunState, RunTaskStatus, created, with_tasks
from runstream.events.run import (
    RunArchived,
    RunFinished,
    RunResultSet,
    RunTaskApprovalRequested,
    RunTasksCancelled,
    RunTasksSkipped,
)
from runstream.events.run_config import Condition, Depend, RunConfig
from runstream.run_states import RunPhase, RunResult
from tests.factories import run_created

from .world import config, task

AT = datetime(2026, 1, 1, tzinfo=UTC)
ON_FAILURE = Depend("a", ("on_failure",))
ON_SUCCESS = Depend("a", ("on_success",))
ON_BUILD = Depend("build", ("on_success",))
ALL_THREE: tuple[Condition, ...] = ("on_success", "on_failure", "on_skipped")
UNMET: tuple[tuple[str, Condition], ...] = (("undo", "on_failure"), ("else", "on_skipped"))


def run_of(content: RunConfig, *, phase: RunPhase = RunPhase.RUNNING, **statuses: RunTaskStatus) -> RunState:
    event = run_created(content.name, run_config="hash")
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


def test_fail_fast_cancels_what_has_not_started_but_not_what_was_given_out() -> None:
    content = replace(config(task("a"), task("b"), task("c")), fail_fast=True)
    run = run_of(content, a=RunTaskStatus.FAILED)
    run = replace(
        run, result=RunResult.FAILED, tasks={**run.tasks, "b": replace(run.tasks["b"], executor_task_id="given")}
    )
    assert advance_run_tasks(run, content) == [RunTasksCancelled(("c",))]
    assert tasks_to_run(run, content, AT) == ["c"]
    assert not advance_run_tasks(run, replace(content, fail_fast=False))


def matrix(*, behind: str, conditions: tuple[Condition, ...], fail_fast: bool) -> RunConfig:
    """Tasks a to d, all behind another one or none, and a report on them."""
    first = [task(behind)] if behind else []
    depends = [Depend(behind, ("on_success",))] if behind else []
    tasks = [task(name, *depends) for name in "abcd"]
    report = task("report", *(Depend(name, conditions) for name in "abcd"))
    return replace(config(*first, *tasks, report), fail_fast=fail_fast)


def failed_matrix(content: RunConfig, *succeeded: str) -> RunState:
    """The run of a matrix of which a failed."""
    run = run_of(content, a=RunTaskStatus.FAILED)
    return with_tasks(run, [name for name in succeeded if name], status=RunTaskStatus.SUCCESS)


SHAPES = pytest.mark.parametrize("behind", ["", "prepare"])


@SHAPES
@pytest.mark.parametrize("conditions", [ALL_THREE, ("always",)])
def test_a_failure_cancels_no_sibling(behind: str, conditions: tuple[Condition, ...]) -> None:
    content = matrix(behind=behind, conditions=conditions, fail_fast=False)
    run, events = advance(failed_matrix(content, behind), content, AT)
    assert events == [RunResultSet(RunResult.FAILED)]
    assert tasks_to_run(run, content, AT) == ["b", "c", "d"]
    run = failed_matrix(content, behind, "b", "c", "d")
    assert tasks_to_run(run, content, AT) == ["report"]


@SHAPES
@pytest.mark.parametrize("conditions", [ALL_THREE, ("always",), ("on_failure", "on_skipped")])
def test_fail_fast_starts_nothing_more_but_what_reacts_to_failures(
    behind: str, conditions: tuple[Condition, ...]
) -> None:
    content = matrix(behind=behind, conditions=conditions, fail_fast=True)
    run, events = advance(failed_matrix(content, behind), content, AT)
    assert events == [RunResultSet(RunResult.FAILED), RunTasksCancelled(("b", "c", "d"))]
    assert tasks_to_run(run, content, AT) == ["report"]


def test_a_task_behind_a_skip_or_a_success_is_no_reaction_to_failures() -> None:
    deploy = task("deploy", Depend("b", ("on_success", "on_skipped")))
    content = replace(config(task("a"), task("b"), deploy), fail_fast=True)
    run, _ = advance(run_of(content, a=RunTaskStatus.FAILED), content, AT)
    assert run.tasks["deploy"].status is RunTaskStatus.CANCELLED


def test_an_ignored_failure_is_a_success_for_what_depends_on_it() -> None:
    content = config(
        task("lint", ignore_failure=True),
        task("deploy", Depend("lint", ("on_success",))),
        *(task(name, Depend("lint", (condition,))) for name, condition in UNMET),
    )
    run, events = advance(run_of(content, lint=RunTaskStatus.FAILED), content, AT)
    assert events == [RunTasksSkipped(("undo", "else"))]
    assert tasks_to_run(run, content, AT) == ["deploy"]
    done = replace(run.tasks["deploy"], status=RunTaskStatus.SUCCESS)
    run, _ = advance(replace(run, tasks={**run.tasks, "deploy": done}), content, AT)
    assert (run.result, run.tasks["lint"].status) == (RunResult.SUCCESS, RunTaskStatus.FAILED)


@pytest.mark.parametrize("status", sorted(FINAL_STATUSES))
def test_always_runs_after_every_outcome_also_in_a_stopped_run(status: RunTaskStatus) -> None:
    content = config(
        task("test"), task("clean up", Depend("test", ("always",))), task("more", Depend("test", ALL_THREE))
    )
    for stop in (False, True):
        run, _ = advance(replace(run_of(content, test=status), stop=stop), content, AT)
        assert "clean up" in tasks_to_run(run, content, AT)
        assert not run.finished
    assert run.tasks["more"].status is RunTaskStatus.SKIPPED


def test_after_a_stop_always_waits_for_its_parents_and_the_run_is_stopped() -> None:
    """In a chain of which nothing has started, and in one that runs."""
    content = config(
        task("build"),
        task("test", ON_BUILD),
        task("clean up", Depend("test", ("always",))),
        task("ask", needs_approval=True),
    )
    run = run_of(content, build=RunTaskStatus.RUNNING)
    given = replace(run.tasks["build"], executor_task_id="given", executor_task_open=True)
    run, _ = advance(replace(run, stop=True, tasks={**run.tasks, "build": given}), content, AT)
    assert (run.result, run.tasks["test"].status) == (RunResult.STOPPED, RunTaskStatus.SKIPPED)
    assert tasks_to_run(run, content, AT) == ["clean up"]
    cleaned = replace(run.tasks["clean up"], status=RunTaskStatus.SUCCESS)
    stopped = replace(run.tasks["build"], status=RunTaskStatus.STOPPED, executor_task_open=False)
    run, _ = advance(replace(run, tasks={**run.tasks, "build": stopped, "clean up": cleaned}), content, AT)
    assert (run.phase, run.result) == (RunPhase.FINISHED, RunResult.STOPPED)


def test_the_other_dependencies_of_an_always_task_are_kept_after_a_stop_and_nothing_waits_for_approval() -> None:
    content = config(
        task("up"),
        task("test", Depend("up", ("on_success",))),
        task("other"),
        task("down", Depend("other", ("on_success",)), Depend("test", ("always",))),
        task("asked", Depend("test", ("always",)), needs_approval=True),
    )
    for other, expected in ((RunTaskStatus.SUCCESS, ["down"]), (RunTaskStatus.STOPPED, [])):
        run = run_of(content, up=RunTaskStatus.SUCCESS, test=RunTaskStatus.STOPPED, other=other)
        run, _ = advance(replace(run, stop=True), content, AT)
        assert tasks_to_run(run, content, AT) == expected
        assert run.tasks["asked"].status is RunTaskStatus.SKIPPED


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


def test_a_queued_run_assigns_no_task_and_an_ended_one_is_archived_once() -> None:
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
