"""action_test.json: which tasks a restart runs again, under which ids, on what they depend then.

An id of ours follows from the run and the task's name, as `$out:NAME` does; a task that is kept keeps its `$in:NAME`.
The recorded runs are `queued`, since the recorded function leaves the check to its caller; here they have ended.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from runstream.domain.restart import decide_restart
from runstream.domain.run import RestartOrigin, RunState, RunTask, RunTaskStatus, created, evolve
from runstream.events.run_config import Depend, RunConfig
from runstream.gateway.responses import run_answer
from runstream.run_states import RunPhase, RunResult
from runstream.runconfig.graph import with_levels
from tests.factories import run_created

from .cases import cases
from .test_scheduler import config_task

AT = datetime(2026, 1, 1, tzinfo=UTC)
CREATED = run_created(run_config="")


def config_of(given: dict[str, Any]) -> RunConfig:
    tasks = {}
    for task in given.values():
        depends = (task["depends"] or {}).values()
        named = tuple(Depend(given[d["task_id"]]["name"], tuple(d["conditions"])) for d in depends)
        tasks[task["name"]] = replace(config_task({**task, "depends": {}}), depends=named)
    return RunConfig("run", with_levels(tasks), {}, {}, "")


def run_of(given: dict[str, Any], names: dict[str, str]) -> RunState:
    run = created("oldrun", CREATED, RunConfig("run", {}, {}, {}, ""), AT, lambda _run, name: name)
    tasks = {
        names[task["id"]]: RunTask(task["id"], names[task["id"]], RunTaskStatus(task["status"]), skip=False)
        for task in given.values()
    }
    return replace(run, tasks=tasks, phase=RunPhase.FINISHED, result=RunResult.FAILED)


@cases("action_test.json")
def test_restart(case: dict[str, Any]) -> None:
    config = config_of(case["run_config"]["tasks"])
    names = {task["id"]: task["name"] for task in case["run_config"]["tasks"].values()}
    from_start = case["request"].get("from_start", False)
    asked = RestartOrigin("oldrun", "all" if from_start else "failed", (), descendants=False, fresh=False)
    restarted = decide_restart(run_of(case["run"]["tasks"], names), config, asked)
    new = evolve(created("newrun", CREATED, config, AT, lambda _run, name: f"$out:{name}"), restarted, AT)
    answer = run_answer(new, config, {})
    assert answer.run_config is not None

    expected = case["expect"]["run_config"]["tasks"]
    assert {key: _depends(task) for key, task in expected.items()} == {
        key: {parent: (d.task_id, d.conditions) for parent, d in task.depends.items()}
        for key, task in answer.run_config.tasks.items()
    }
    assert {key: task["status"] for key, task in case["expect"]["run"]["tasks"].items()} == {
        key: task.status for key, task in answer.run.tasks.items()
    }
    assert (answer.run.phase, answer.run.result) == ("queued", "unknown")


def _depends(task: dict[str, Any]) -> dict[str, tuple[str, list[str]]]:
    return {parent: (d["task_id"], d["conditions"]) for parent, d in (task["depends"] or {}).items()}
