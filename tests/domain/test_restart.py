"""What a restart runs again and what it keeps, where the recorded cases leave it open; and when it is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runstream.domain.actions import NotAllowed
from runstream.domain.advance import advance, tasks_to_run
from runstream.domain.restart import can_restart, decide_restart
from runstream.domain.run import RestartOrigin, RunState, RunTaskStatus, created, evolve
from runstream.events.run import RunRestarted, RunResultSet, RunStarted
from runstream.events.run_config import Depend, RunConfig
from runstream.run_states import RunPhase, RunResult
from tests.factories import run_created

from .test_advance import run_of
from .world import config, random_config, task

AT = datetime(2026, 1, 1, tzinfo=UTC)
SUCCESS, FAILED, SKIPPED = RunTaskStatus.SUCCESS, RunTaskStatus.FAILED, RunTaskStatus.SKIPPED
ALL = RestartOrigin("r", "all", (), descendants=False, fresh=False)
FROM_FAILED = replace(ALL, scope="failed")
CHAIN = config(
    task("build"), task("test", Depend("build", ("on_success",))), task("deploy", Depend("test", ("on_success",)))
)


def chosen(*names: str, descendants: bool = False) -> RestartOrigin:
    return replace(ALL, scope="chosen", tasks=names, descendants=descendants)


def ended(content: RunConfig, result: RunResult = RunResult.FAILED, **statuses: RunTaskStatus) -> RunState:
    return replace(run_of(content, phase=RunPhase.FINISHED, **statuses), result=result)


def again(run: RunState, content: RunConfig, asked: RestartOrigin) -> list[str]:
    kept = {kept.task for kept in decide_restart(run, content, asked).kept}
    return [name for name in run.tasks if name not in kept]


def started(restart: RunRestarted, content: RunConfig) -> RunState:
    """The new run, once it has started and all that follows at once has happened."""
    event = run_created(run_config="hash")
    run = created("new", event, content, AT, lambda run, name: f"{run}-{name}")
    for happened in (restart, RunStarted()):
        run = evolve(run, happened, AT)
    return advance(run, content, AT)[0]


def test_named_tasks_run_again_alone_or_with_what_depends_on_them() -> None:
    run = ended(CHAIN, RunResult.SUCCESS, build=SUCCESS, test=SUCCESS, deploy=SUCCESS)
    assert again(run, CHAIN, chosen("test")) == ["test"]
    assert again(run, CHAIN, chosen("test", descendants=True)) == ["test", "deploy"]
    assert again(run, CHAIN, chosen("deploy", "build", descendants=True)) == ["build", "test", "deploy"]
    assert again(run, CHAIN, ALL) == ["build", "test", "deploy"]


def test_what_is_kept_is_kept_as_it_was() -> None:
    run = ended(CHAIN, RunResult.STOPPED, build=SUCCESS, test=FAILED, deploy=SKIPPED)
    approved = replace(
        run.tasks["build"],
        executor_task_id="x",
        attempt=3,
        approved=True,
        approvers=("user:ada",),
        approved_at=AT,
        annotations={"ticket": "7"},
        start_time=AT,
        end_time=AT,
    )
    run = replace(run, tasks={**run.tasks, "build": approved})
    restart = decide_restart(run, CHAIN, FROM_FAILED)
    assert started(restart, CHAIN).tasks["build"] == replace(approved, kept=True)
    assert again(run, CHAIN, FROM_FAILED) == ["test", "deploy"]


def test_the_outcome_of_what_depends_on_a_named_task_stands() -> None:
    run = ended(CHAIN, RunResult.SUCCESS, build=SUCCESS, test=SUCCESS, deploy=SUCCESS)
    new = started(decide_restart(run, CHAIN, chosen("build")), CHAIN)
    assert tasks_to_run(new, CHAIN, AT) == ["build"]
    failed = replace(new, tasks={**new.tasks, "build": replace(new.tasks["build"], status=FAILED)})
    over, events = advance(failed, CHAIN, AT)
    assert events[0] == RunResultSet(RunResult.FAILED)
    assert {task.name: task.status for task in over.tasks.values()} == {
        "build": FAILED,
        "test": SUCCESS,
        "deploy": SUCCESS,
    }


@pytest.mark.parametrize(("outcome", "result"), [(SUCCESS, RunResult.FAILED), (SKIPPED, RunResult.FAILED)])
def test_a_failure_that_is_kept_keeps_nothing_from_running(outcome: RunTaskStatus, result: RunResult) -> None:
    """Unlike one of the run itself, which cancels tasks that have not begun: it counts at the end."""
    content = config(task("lint"), task("deploy"))
    run = ended(content, lint=FAILED, deploy=SUCCESS)
    new = started(decide_restart(run, content, chosen("deploy")), content)
    assert tasks_to_run(new, content, AT) == ["deploy"]
    over = replace(new, tasks={**new.tasks, "deploy": replace(new.tasks["deploy"], status=outcome)})
    assert advance(over, content, AT)[0].result is result


def test_all_kept_is_over_at_once() -> None:
    run = ended(config(), RunResult.STOPPED)
    assert started(decide_restart(run, config(), FROM_FAILED), config()).result is RunResult.SUCCESS


@pytest.mark.parametrize(
    ("run", "asked", "message", "allowed"),
    [
        (run_of(CHAIN, phase=RunPhase.SETUP_ERROR), ALL, "the run has setup errors", "create a new run"),
        (run_of(CHAIN, phase=RunPhase.QUEUED), ALL, "the run is queued", "can be cancelled"),
        (run_of(CHAIN), chosen("build"), "the run is running", "can be stopped"),
        (ended(CHAIN, RunResult.SUCCESS), FROM_FAILED, "the run succeeded", "some of its tasks"),
        (run_of(CHAIN, phase=RunPhase.CANCELLED), chosen("build"), "task 'test' has no outcome", "name that task"),
        (
            ended(CHAIN, build=FAILED, test=SKIPPED, deploy=SKIPPED),
            chosen("test"),
            r"depends on 'build' \(on_success\), which keeps its outcome: failed",
            "name task 'build' too",
        ),
    ],
)
def test_what_cannot_be_restarted_says_what_can(
    run: RunState, asked: RestartOrigin, message: str, allowed: str
) -> None:
    with pytest.raises(NotAllowed, match=message) as refused:
        decide_restart(run, CHAIN, asked)
    assert refused.value.code == "runCannotBeRestarted"
    assert allowed in refused.value.allowed
    assert not can_restart(run, CHAIN, asked)


def test_a_task_that_is_skipped_by_its_when_cannot_be_named() -> None:
    content = config(task("a"), task("b", skip=True))
    run = ended(content, a=FAILED)
    with pytest.raises(NotAllowed, match="`when` does not match"):
        decide_restart(run, content, chosen("b"))
    assert can_restart(run, content, chosen("a"))


@pytest.mark.parametrize("missing", [{"executor_task_open": True}, {"archives_pending": True}])
def test_what_is_not_stored_yet_cannot_be_kept(missing: dict[str, bool]) -> None:
    run = ended(CHAIN, build=SUCCESS, test=FAILED, deploy=SKIPPED)
    run = replace(run, tasks={**run.tasks, "build": replace(run.tasks["build"], **missing)})
    with pytest.raises(NotAllowed, match="task 'build' are not stored yet"):
        decide_restart(run, CHAIN, FROM_FAILED)
    assert again(run, CHAIN, ALL) == ["build", "test", "deploy"]


@given(st.randoms(use_true_random=False), st.booleans())
def test_it_agrees_with_the_reference_rules(random: Random, from_failed: bool) -> None:
    content = random_config(random)
    finals = [status for status in RunTaskStatus if status not in (RunTaskStatus.NOT_STARTED, RunTaskStatus.RUNNING)]
    statuses = {name: random.choice(finals) for name in content.tasks}
    run = ended(content, RunResult.FAILED, **statuses)
    names = random.sample(sorted(content.tasks), random.randint(1, len(content.tasks)))
    asked = FROM_FAILED if from_failed else chosen(*names, descendants=True)

    def runs_again(name: str) -> bool:
        ignored = statuses[name] is FAILED and content.tasks[name].ignore_failure
        own = (statuses[name] is not SUCCESS and not ignored) if from_failed else name in names
        return own or any(runs_again(depend.task) for depend in content.tasks[name].depends)

    if can_restart(run, content, asked):
        assert again(run, content, asked) == [name for name in content.tasks if runs_again(name)]
    else:
        assert not from_failed
