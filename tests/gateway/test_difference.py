"""What differs between two runs, or two moments of a run."""

from __future__ import annotations

from typing import Any

import pytest

from runstream.events.executor_task import ExecutorTaskFinished, ExecutorTaskPhase, ExecutorTaskStarted
from runstream.events.run import RunArchived, RunFinished, RunNumbered, RunResultSet, RunStarted
from runstream.ids import executor_task_id, run_task_id
from runstream.run_states import RunResult
from runstream.subjects import Address, partition_of
from tests.factories import task_assigned
from tests.gateway.folding import FoldedLog
from tests.gateway.world import BEGUN, World, run_body, task

P = partition_of("/project/web", 4)


async def _made(world: World, number: int, result: RunResult = RunResult.SUCCESS, **changes: Any) -> str:
    """A run that has ended, with its task `build` executed."""
    async with world.http() as http:
        created = (await http.post("/runs", json=run_body(**changes))).json()["run"]
    run, config = Address(P, "run", created["id"]), created["run_config_id"]
    await world.append(run, RunNumbered(number, number), RunStarted())
    build = run_task_id(run.id, "build")
    executed = Address(P, "task", executor_task_id(run.id, build, 1), f"e{number}")
    assigned = task_assigned(f"e{number}", run.id, build, run_config=config)
    await world.append(executed, assigned, ExecutorTaskStarted(BEGUN))
    phase = ExecutorTaskPhase(result.value)
    await world.append(executed, ExecutorTaskFinished(BEGUN, phase, "" if phase == "success" else "exit status 1"))
    await world.append(run, RunResultSet(result), RunFinished(), RunArchived())
    return run.id


def _world() -> World:
    world = World.make()
    object.__setattr__(world.context, "reads", FoldedLog(world.log))
    return world


def _named(told: dict[str, Any], *areas: str) -> set[tuple[Any, ...]]:
    return {
        (one["area"], one["task"], ".".join(map(str, one["path"])), one["kind"], one["before"], one["after"])
        for one in told["differences"]
        if one["area"] in areas
    }


async def test_a_run_is_compared_with_the_last_one_before_it_that_succeeded() -> None:
    world = _world()
    steps = [{"type": "run", "command": "make"}, {"type": "run", "command": "make test"}]
    green = await _made(world, 1, run_config_tasks={"t": task(steps=steps)}, annotations={"message": "one"})
    await _made(world, 2, RunResult.FAILED)
    await _made(world, 3, group="/project/web/branch/main/below")
    await _made(world, 4, name="other")
    changed = [{"type": "run", "command": "make all"}, {"type": "run", "command": "make test"}]
    extra = {"t": task(steps=changed, environment={"A": "1"}), "new": task("lint")}
    red = await _made(world, 5, RunResult.FAILED, run_config_tasks=extra, annotations={"message": "two"}, priority=3)
    await _made(world, 6)
    async with world.http() as http:
        told = (await http.get(f"/runs/{red}/diff")).json()
        assert told == (await http.get(f"/runs/{red}/diff", params={"vs": green})).json()
        none = await http.get(f"/runs/{green}/diff")
    assert (told["vs"]["id"], told["vs"]["counter"], told["run"]["result"]) == (green, 1, "failed")
    assert _named(told, "source", "configuration", "environment") == {
        ("source", "", "message", "changed", "one", "two"),
        ("configuration", "", "priority", "changed", 0, 3),
        ("configuration", "build", "steps.0.command", "changed", "make", "make all"),
        ("configuration", "lint", "", "added", None, None),
        ("environment", "build", "A", "added", None, "1"),
    }
    outcome = _named(told, "outcome")
    assert ("outcome", "build", "status", "changed", "success", "failed") in outcome
    assert ("outcome", "build", "executor_id", "changed", "e1", "e5") in outcome
    assert ("outcome", "build", "fail_error", "changed", "", "exit status 1") in outcome
    assert next(one["area"] for one in told["differences"]) == "source"
    assert [(one["task"], one["before"], one["after"]) for one in told["tasks"]] == [
        ("build", 0.0, 0.0),
        ("lint", None, None),
    ]
    assert (none.status_code, none.json()[0]["code"]) == (404, "noEarlierSuccess")


async def test_a_run_is_compared_with_an_earlier_moment_of_its_own() -> None:
    world = _world()
    run = await _made(world, 1)
    async with world.http() as http:
        commits = (await http.get(f"/runs/{run}/history")).json()["commits"]
        told = (await http.get(f"/runs/{run}/diff", params={"vs": commits[1]["position"]})).json()
        same = (await http.get(f"/runs/{run}/diff", params={"vs": run})).json()
        earlier = {"vs": commits[0]["position"], "at": commits[1]["position"]}
        begun = (await http.get(f"/runs/{run}/diff", params=earlier)).json()
    assert _named(told, "source", "configuration", "environment") == set()
    assert ("outcome", "", "phase", "changed", "running", "finished") in _named(told, "outcome")
    assert (told["vs"]["at"], told["run"]["at"]) == (commits[1]["position"], "")
    assert same["differences"] == []
    assert _named(begun, "outcome") == {("outcome", "", "phase", "changed", "queued", "running")}


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"vs": "yesterday"}, 400, "invalidPoint"),
        ({"vs": "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"}, 404, "runDoesNotExist"),
        ({"vs": "2026-11-23T09:30:00Z", "vs_at": "1/0/7"}, 400, "invalidParameter"),
        ({"vs": "2001-01-01T00:00:00Z"}, 404, "runDidNotExist"),
    ],
)
async def test_a_comparison_with_nothing_is_refused(query: dict[str, str], status: int, code: str) -> None:
    world = _world()
    run = await _made(world, 1)
    async with world.http() as http:
        answer = await http.get(f"/runs/{run}/diff", params=query)
    assert (answer.status_code, answer.json()[0]["code"]) == (status, code)
