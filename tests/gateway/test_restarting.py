"""POST /runs with `run_id`: what is appended, referred to and answered, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx2
import pytest

from runstream.errors import InternalError
from runstream.events.executor_task import ExecutorTaskFinished, ExecutorTaskPhase
from runstream.events.run import (
    RunArchived,
    RunCancelled,
    RunCreated,
    RunDeleted,
    RunFinished,
    RunRestarted,
    RunResultSet,
    RunStarted,
    RunTasksSkipped,
)
from runstream.ids import executor_task_id, new_id, run_task_id
from runstream.run_states import RunResult
from runstream.subjects import Address, partition_of
from tests.factories import task_assigned, task_kept
from tests.gateway.world import BEGUN, World, run_body, task

GROUP = "/project/web/branch/main"
P = partition_of("/project/web", 4)
SAVE = {"type": "save_to_workspace", "contents": [{"paths": ["**"]}]}
TASKS = {
    "b": task("build", steps=[SAVE]),
    "t": task("test", depends={"b": {"task_id": "b"}}),
    "d": task("deploy", depends={"t": {"task_id": "t"}}),
}


async def ended(world: World, http: httpx2.AsyncClient) -> str:
    """A run whose build succeeded, whose test failed, and whose deploy was skipped."""
    body = run_body(run_config_tasks=TASKS, environment={"STAGE": "one"}, annotations={"who": "me"})
    created = (await http.post("/runs", json=body)).json()["run"]
    run, config = created["id"], created["run_config_id"]
    address = Address(P, "run", run)
    await world.append(address, RunStarted())
    await _executed(world, run, config, "build", ExecutorTaskPhase.SUCCESS)
    await _executed(world, run, config, "test", ExecutorTaskPhase.FAILED)
    await world.append(address, RunResultSet(RunResult.FAILED), RunTasksSkipped(("deploy",)), RunFinished())
    return str(run)


async def _executed(world: World, run: str, config: str, name: str, phase: ExecutorTaskPhase) -> None:
    made = run_task_id(run, name)
    address = Address(P, "task", executor_task_id(run, made), "e1")
    assigned = task_assigned(run_id=run, run_task_id=made, task=name, run_config=config, group=GROUP)
    await world.append(address, assigned)
    await world.append(address, ExecutorTaskFinished(BEGUN, phase, ""))


async def _events(world: World, run: str) -> list[object]:
    return [event for stored in await world.log.history(Address(P, "run", run)) for event in stored.commit.events]


def _names(run: dict[str, Any], *, kept: bool) -> set[str]:
    return {one["name"] for one in run["tasks"].values() if one["kept"] is kept}


async def test_what_did_not_succeed_runs_again_and_the_rest_is_kept() -> None:
    world = World.make()
    async with world.http() as http:
        earlier = await ended(world, http)
        answer = await http.post("/runs", json={"run_id": earlier})
        assert answer.status_code == 201, answer.text
        run = answer.json()["run"]
        told = (await http.get(f"/runs/{run['id']}")).json()["run"]
    assert (run["phase"], run["result"], run["group"], run["annotations"]) == (
        "queued",
        "unknown",
        GROUP,
        {"who": "me"},
    )
    assert run["restart"] == {"run_id": earlier, "scope": "failed", "tasks": [], "descendants": False, "fresh": False}
    assert (_names(run, kept=True), _names(run, kept=False)) == ({"build"}, {"test", "deploy"})
    kept = run["tasks"][run_task_id(earlier, "build")]
    assert (kept["status"], kept["executor_id"], kept["steps"][0]["phase"]) == ("success", "e1", "notstarted")
    assert told["tasks"][kept["id"]] == kept
    again = run["tasks"][run_task_id(run["id"], "test")]
    assert (again["status"], list(again["depends"])) == ("notstarted", [kept["id"]])
    assert list(answer.json()["run_config"]["tasks"][again["id"]]["depends"]) == [kept["id"]]
    assert world.shared.referred == [(run["id"], (kept["id"],), (kept["id"],))]
    created, restarted = await _events(world, run["id"])
    assert isinstance(created, RunCreated)
    assert isinstance(restarted, RunRestarted)
    (one,) = restarted.kept
    assert one == task_kept("build", kept["id"], kept["executor_task_id"], end_time=BEGUN)


@pytest.mark.parametrize(
    ("asked", "kept", "scope"),
    [
        ({"from_start": True}, set(), "all"),
        ({"from_start": True, "group": "/ignored", "reset_tasks": ["x"]}, set(), "all"),
        ({"tasks": ["build"]}, {"test", "deploy"}, "chosen"),
        ({"tasks": ["build"], "descendants": True}, set(), "chosen"),
        ({"tasks": ["test", "test"]}, {"build", "deploy"}, "chosen"),
    ],
)
async def test_what_was_asked_for_is_recorded(asked: dict[str, Any], kept: set[str], scope: str) -> None:
    world = World.make()
    async with world.http() as http:
        earlier = await ended(world, http)
        answer = await http.post("/runs", json={"run_id": earlier, **asked})
    run = answer.json()["run"]
    assert _names(run, kept=True) == kept
    restart = run["restart"]
    assert (restart["scope"], restart["tasks"]) == (scope, list(dict.fromkeys(asked.get("tasks", []))))
    assert restart["descendants"] is asked.get("descendants", False)
    never_ran = {run_task_id(earlier, "deploy")}
    assert {id_ for _, logs, _ in world.shared.referred for id_ in logs} == {
        run_task_id(earlier, name) for name in kept
    } - never_ran


async def test_a_task_is_named_by_its_id_too_and_the_environment_is_replaced_when_it_is_given() -> None:
    world = World.make()
    async with world.http() as http:
        earlier = await ended(world, http)
        by_id = {"run_id": earlier, "tasks": [run_task_id(earlier, "test")]}
        same = (await http.post("/runs", json=by_id)).json()
        other = (await http.post("/runs", json={**by_id, "environment": {"STAGE": "two"}})).json()
    assert same["run"]["restart"]["tasks"] == ["test"]
    assert same["run_config"]["environment"] == {"STAGE": "one"}
    assert other["run_config"]["environment"] == {"STAGE": "two"}


async def test_a_restart_of_a_restart_keeps_what_that_kept() -> None:
    world = World.make()
    async with world.http() as http:
        first = await ended(world, http)
        second = (await http.post("/runs", json={"run_id": first})).json()["run"]["id"]
        await world.append(Address(P, "run", second), RunCancelled(""))
        third = (await http.post("/runs", json={"run_id": second})).json()["run"]
    assert third["restart"]["run_id"] == second
    assert _names(third, kept=True) == {"build"}
    assert third["tasks"][run_task_id(first, "build")]["executor_id"] == "e1"
    assert [run for run, *_ in world.shared.referred] == [second, third["id"]]


@pytest.mark.parametrize(
    ("asked", "status", "code", "message"),
    [
        ({"tasks": ["deploy"]}, 400, "runCannotBeRestarted", "it depends on 'test'"),
        ({"tasks": ["nope"]}, 404, "runTaskDoesNotExist", "has no task 'nope'"),
        ({"tasks": ["build"], "from_start": True}, 400, "invalidRestart", "from the start, or of some tasks"),
        ({"descendants": True}, 400, "invalidRestart", "descendants of no tasks"),
        ({"name": "other", "priority": 3}, 400, "invalidRestart", "takes name, priority from the earlier run"),
        ({"run_id": new_id()}, 404, "runDoesNotExist", "does not exist"),
        ({"run_id": "12"}, 400, "invalidId", "run id"),
        ({"run_id": "", "from_start": True}, 400, "invalidRestart", "from_start without run_id"),
    ],
)
async def test_what_is_refused_says_why(asked: dict[str, Any], status: int, code: str, message: str) -> None:
    world = World.make()
    async with world.http() as http:
        earlier = await ended(world, http)
        answer = await http.post("/runs", json={"run_id": earlier, **asked})
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (status, code)
    assert message in error["message"]
    assert error["hint"]
    assert world.shared.referred == []


async def test_a_run_that_goes_on_cannot_be_restarted_and_one_with_setup_errors_never() -> None:
    world = World.make()
    async with world.http() as http:
        run = (await http.post("/runs", json=run_body())).json()["run"]
        queued = await http.post("/runs", json={"run_id": run["id"], "from_start": True})
        await world.append(Address(P, "run", run["id"]), RunStarted())
        running = await http.post("/runs", json={"run_id": run["id"]})
        broken = (await http.post("/runs", json=run_body(setup_errors=["line 3"]))).json()["run"]
        setup = await http.post("/runs", json={"run_id": broken["id"], "tasks": ["build"]})
    told = [
        (answer.status_code, answer.json()[0]["code"], answer.json()[0]["details"].get("phase"))
        for answer in (queued, running, setup)
    ]
    assert told == [
        (400, "runCannotBeRestarted", "queued"),
        (400, "runCannotBeRestarted", "running"),
        (400, "runCannotBeRestarted", "setuperror"),
    ]
    assert not run["can_restart_from_scratch"]


async def test_a_run_says_how_it_can_be_restarted() -> None:
    world = World.make()
    async with world.http() as http:
        failed = (await http.get(f"/runs/{await ended(world, http)}")).json()["run"]
        one = (await http.post("/runs", json=run_body(run_config_tasks={}))).json()["run"]["id"]
        await world.append(Address(P, "run", one), RunStarted(), RunResultSet(RunResult.SUCCESS), RunFinished())
        success = (await http.get(f"/runs/{one}")).json()["run"]
    said = [(run["can_restart_from_scratch"], run["can_restart_from_failed_tasks"]) for run in (failed, success)]
    assert said == [(True, True), (True, False)]


async def test_nothing_is_appended_when_what_is_kept_cannot_be_referred_to() -> None:
    world = World.make()

    async def away(run_id: str, *, logs: object, archives: object) -> None:
        raise InternalError("the bucket is away", code="objectsUnreachable")

    async with world.http() as http:
        earlier = await ended(world, http)
        end = await world.log.end(P)
        world.shared.refer = away  # type: ignore[method-assign]
        answer = await http.post("/runs", json={"run_id": earlier})
        assert (answer.status_code, answer.json()[0]["code"]) == (503, "objectsUnreachable")
        assert await world.log.end(P) == end
        assert (await http.post("/runs", json={"run_id": earlier, "from_start": True})).status_code == 201


@pytest.mark.parametrize("key", ["", "k"])
async def test_a_restart_of_a_run_that_is_deleted_at_the_same_moment_is_refused(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its references are removed again, unless another request with the same key may create the run."""
    world = World.make()
    async with world.http() as http:
        earlier = await ended(world, http)
        refer = world.shared.refer

        async def refer_late(run_id: str, *, logs: Sequence[str], archives: Sequence[str]) -> None:
            await world.append(Address(P, "run", earlier), RunArchived(), RunDeleted(""))
            await refer(run_id, logs=logs, archives=archives)

        monkeypatch.setattr(world.shared, "refer", refer_late)
        headers = {"Idempotency-Key": key} if key else {}
        answer = await http.post("/runs", json={"run_id": earlier}, headers=headers)
    assert answer.status_code == 404
    assert answer.json()[0]["code"] == "runDeleted"
    assert len(world.shared.referred) == (1 if key else 0)
    created = [message for message in world.log.streams[P].messages if b"RunRestarted" in message.data]
    assert created == []


@pytest.mark.parametrize(
    ("query", "again"),
    [
        ({"from_start": "1"}, {"build", "test", "deploy"}),
        ({}, {"test", "deploy"}),
        ({"task": "test"}, {"test"}),
        ({"task": "test", "descendants": "1"}, {"test", "deploy"}),
    ],
)
async def test_a_restart_is_previewed_as_it_is_decided(query: dict[str, str], again: set[str]) -> None:
    world = World.make()
    async with world.http() as http:
        earlier = await ended(world, http)
        before = len(world.log.streams[P].messages)
        told = (await http.get(f"/runs/{earlier}/restart/preview", params=query)).json()
        assert len(world.log.streams[P].messages) == before
        body = {"run_id": earlier, "tasks": [query["task"]] if "task" in query else []}
        flags = {name: name in query for name in ("from_start", "descendants")}
        run = (await http.post("/runs", json={**body, **flags})).json()["run"]
    assert (told["possible"], told["reason"], told["hint"]) == (True, "", "")
    assert set(told["again"]) == again == _names(run, kept=False)
    assert set(told["kept"]) == _names(run, kept=True)


async def test_the_preview_of_an_impossible_restart_says_why() -> None:
    world = World.make()
    async with world.http() as http:
        run = (await http.post("/runs", json=run_body())).json()["run"]["id"]
        told = (await http.get(f"/runs/{run}/restart/preview")).json()
        unknown = await http.get(f"/runs/{run}/restart/preview", params={"task": "nothing"})
        both = await http.get(f"/runs/{run}/restart/preview", params={"task": "build", "from_start": "1"})
    assert told == {
        "possible": False,
        "reason": "the run is queued and cannot be restarted",
        "hint": "a queued run can be cancelled; it can be restarted once it has ended",
        "again": [],
        "kept": [],
    }
    assert (unknown.status_code, unknown.json()[0]["code"]) == (404, "runTaskDoesNotExist")
    assert (both.status_code, both.json()[0]["code"]) == (400, "invalidRestart")
