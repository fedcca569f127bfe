"""Deleting runs, removing their logs and archives, and which runs refer to these."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from runstream.domain.actions import NotAllowed, decide_delete
from runstream.domain.executor import Lack, Offer, demand_of, unfit
from runstream.domain.holders import KINDS, Holders
from runstream.domain.restart import decide_restart
from runstream.domain.run import RestartOrigin, RunState, RunTaskStatus, evolve
from runstream.events.run import KeptTask, RunArchived, RunDataRemoved, RunDeleted, RunFinished, RunRestarted
from runstream.events.run_config import Container, Runtime
from runstream.run_states import RunPhase, RunResult
from tests.factories import task_assigned, task_kept

from .test_advance import run_of
from .world import config, task

AT = datetime(2026, 1, 1, tzinfo=UTC)
CONTENT = config(task("a"), task("b"))


def finished() -> RunState:
    """A run whose first task has saved an archive and whose second one failed."""
    run = run_of(CONTENT, phase=RunPhase.FINISHED, a=RunTaskStatus.SUCCESS, b=RunTaskStatus.FAILED)
    saved = replace(run.tasks["a"], executor_task_id="x", archive_steps=(0,))
    return replace(run, result=RunResult.FAILED, tasks={**run.tasks, "a": saved})


def test_a_run_is_deleted_once_when_it_has_ended_and_its_logs_are_stored() -> None:
    with pytest.raises(NotAllowed) as refused:
        decide_delete(run_of(CONTENT))
    assert refused.value.code == "runNotEnded"
    with pytest.raises(NotAllowed) as refused:
        decide_delete(finished())
    assert refused.value.code == "runLogsPending"
    archived = evolve(finished(), RunArchived(), AT)
    assert decide_delete(archived, "keep 3") == (RunDeleted("keep 3"),)
    deleted = evolve(archived, RunDeleted("keep 3"), AT)
    assert (deleted.deleted_at, deleted.deleted_for, decide_delete(deleted)) == (AT, "keep 3", ())


def test_an_archived_run_holds_its_logs_and_archives_until_they_are_removed() -> None:
    run = finished()
    assert (run.holds_logs, run.holds_archives) == (False, False)
    run = evolve(run, RunArchived(), AT)
    assert (run.holds_logs, run.holds_archives) == (True, True)
    run = evolve(run, RunDataRemoved(("archives",), "7d"), AT)
    assert (run.holds_logs, run.holds_archives, run.archives_removed_at) == (True, False, AT)
    run = evolve(run, RunDataRemoved(("logs",), "30d"), AT)
    assert (run.holds_logs, run.logs_removed_at) == (False, AT)
    never_ran = evolve(evolve(run_of(CONTENT), RunFinished(), AT), RunArchived(), AT)
    assert (never_ran.holds_logs, never_ran.holds_archives) == (False, False)
    keeping = replace(run, tasks={**run.tasks, "a": replace(run.tasks["a"], kept=True)})
    assert (run.kept_executions, keeping.kept_executions) == ((), ("x",))


def test_neither_a_deleted_run_nor_removed_archives_are_restarted() -> None:
    request = RestartOrigin("r", "failed", (), descendants=False, fresh=False)
    run = evolve(finished(), RunArchived(), AT)
    assert [kept.task for kept in decide_restart(run, CONTENT, request).kept] == ["a"]
    without = evolve(run, RunDataRemoved(("archives",), "7d"), AT)
    with pytest.raises(NotAllowed, match="retention removed the archives of task 'a' at 2026-01-01 00:00:00 UTC"):
        decide_restart(without, CONTENT, request)
    with pytest.raises(NotAllowed, match="the run was deleted"):
        decide_restart(evolve(run, RunDeleted(""), AT), CONTENT, request)


def _restart(*kept: KeptTask) -> RunRestarted:
    return RunRestarted("first", "failed", (), descendants=False, fresh=False, kept=kept)


def test_data_is_held_by_the_run_that_made_it_and_by_restarts_that_keep_it() -> None:
    holders = Holders()
    holders.take("task", task_assigned(run_id="first", run_task_id="a"))
    holders.take("second", _restart(task_kept("a", "a", "x"), task_kept("b", "b")))
    assert holders.of("a", "logs") == holders.of("a", "archives") == {"first", "second"}
    assert not holders.held("b", "logs")
    holders.take("first", RunDataRemoved(("archives",), "7d"))
    assert holders.of("a", "archives") == {"second"}
    holders.take("third", _restart(task_kept("a", "a", "x")))
    assert holders.of("a", "archives") == {"second"}
    assert holders.of("a", "logs") == {"first", "second", "third"}
    for run in ("first", "second", "third", "unknown"):
        holders.take(run, RunFinished())
        holders.take(run, RunDeleted(""))
    assert not any(holders.held("a", kind) for kind in KINDS)
    holders.take("first", RunDataRemoved(KINDS, "7d"))


def test_a_pod_waits_for_an_engine_that_is_unreachable() -> None:
    pod = Runtime("pod", "", (Container("image", {}, "", False, "", ()),))
    away = Offer("e", (), {}, True, False, True, 0, {}, engine_away="connection refused")
    assert unfit(away, 0, demand_of(pod)) == [
        Lack("pod", "cannot run containers now: its engine is unreachable (connection refused)")
    ]
