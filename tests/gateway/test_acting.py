"""Stop, cancel, approve, delete: decided on the history; a refusal names the state and the allowed actions."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from runstream.client import ClientError
from runstream.commits import Head, NewCommit, Position
from runstream.database.runs import ExecutorRecord
from runstream.domain.executor import ExecutorState, RegisteredExecutor
from runstream.events.event import DomainEvent
from runstream.events.executor import ExecutorDeleted, ExecutorDrained, ExecutorRegistered, ExecutorUndrained
from runstream.events.run import (
    RunArchived,
    RunCancelled,
    RunDeleted,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    RunStopRequested,
    RunTaskAnnotated,
    RunTaskApprovalRequested,
    RunTaskApproved,
)
from runstream.ids import run_task_id
from runstream.subjects import Address, partition_of
from tests.factories import executor_registered
from tests.gateway.world import World, run_body
from tests.log.memory import MemoryLog

P = partition_of("/project/web", 4)
REGISTERED = executor_registered()


async def _created(world: World) -> Address:
    async with world.http() as http:
        run = (await http.post("/runs", json=run_body())).json()["run"]
    return Address(P, "run", run["id"])


async def _types(world: World, address: Address) -> list[type]:
    return [type(event) for stored in await world.log.history(address) for event in stored.commit.events]


@pytest.mark.parametrize("body", [{"action_type": "cancel"}, {"action_type": "changephase", "phase": "cancelled"}])
async def test_a_queued_run_is_cancelled(body: dict[str, str]) -> None:
    world = World.make()
    address = await _created(world)
    async with world.http() as http:
        answer = await http.put(f"/runs/{address.id}/actions", json=body)
    assert answer.status_code == 200
    assert answer.headers["Runstream-Position"] == answer.json()["position"]
    assert (await _types(world, address))[-1] is RunCancelled


async def test_a_running_run_is_stopped_once() -> None:
    world = World.make()
    address = await _created(world)
    await world.append(address, RunStarted())
    async with world.http() as http:
        first = await http.put(f"/runs/{address.id}/actions", json={"action_type": "stop"})
        second = await http.put(f"/runs/{address.id}/actions", json={"action_type": "stop"})
    assert (first.status_code, second.status_code, second.json()["position"]) == (200, 200, "")
    assert (await _types(world, address)).count(RunStopRequested) == 1


async def test_a_run_that_has_ended_is_deleted_once() -> None:
    world = World.make()
    address = await _created(world)
    await world.append(address, RunCancelled(""), RunArchived())
    async with world.client() as client:
        await client.runs.delete(address.id)
        assert (await _types(world, address))[-1] is RunDeleted
        for ask in (client.runs.get, client.runs.delete, client.runs.resume, client.runs.failures, client.runs.restart):
            with pytest.raises(ClientError, match=f"run {address.id} was deleted by a user at ") as refused:
                await ask(address.id)
            assert (refused.value.code, refused.value.kind) == ("runDeleted", "not-exist")
        assert (await client.runs.get(address.id, at=datetime.now(UTC).isoformat())).phase == "cancelled"
    assert (await _types(world, address)).count(RunDeleted) == 1


@pytest.mark.parametrize(
    ("events", "code", "message"),
    [
        ((), "runNotEnded", "the run is queued and cannot be deleted"),
        ((RunStarted(),), "runNotEnded", "the run is running and cannot be deleted"),
        ((RunStarted(), RunFinished()), "runLogsPending", "the run has ended, and its last logs are not stored yet"),
    ],
)
async def test_a_run_that_has_logs_to_store_is_not_deleted(
    events: tuple[DomainEvent, ...], code: str, message: str
) -> None:
    world = World.make()
    address = await _created(world)
    if events:
        await world.append(address, *events)
    async with world.http() as http:
        answer = await http.delete(f"/runs/{address.id}")
    assert answer.status_code == 409
    (entry,) = answer.json()
    assert (entry["code"], entry["message"]) == (code, message)
    assert RunDeleted not in await _types(world, address)


async def test_a_run_is_paused_and_resumed() -> None:
    world = World.make()
    address = await _created(world)
    async with world.client() as client:
        await client.runs.pause(address.id)
        await client.runs.pause(address.id)
        paused = await client.runs.get(address.id)
        await client.runs.resume(address.id)
        resumed = await client.runs.get(address.id)
        await client.runs.cancel(address.id)
        with pytest.raises(ClientError, match="the run is cancelled and cannot be paused") as refused:
            await client.runs.pause(address.id)
    assert paused.paused_at is not None
    assert resumed.paused_at is None
    assert (refused.value.code, refused.value.status) == ("runCannotBePaused", 400)
    assert (await _types(world, address))[1:] == [RunPaused, RunResumed, RunCancelled]


@pytest.mark.parametrize(
    ("body", "code", "message", "hint"),
    [
        ({"action_type": "stop"}, "runNotRunning", "the run is queued and cannot be stopped", "can be cancelled"),
        ({"action_type": "resume"}, "runNotPaused", "the run is queued and cannot be resumed", "cancelled or paused"),
        ({"action_type": "changephase", "phase": "running"}, "invalidPhase", "cannot be changed to 'running'", "user"),
        ({"action_type": "dance"}, "invalidBody", "action_type", "openapi"),
    ],
)
async def test_what_is_not_allowed_says_what_would_be(body: dict[str, str], code: str, message: str, hint: str) -> None:
    world = World.make()
    address = await _created(world)
    async with world.http() as http:
        answer = await http.put(f"/runs/{address.id}/actions", json=body)
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (400, code)
    assert message in error["message"]
    assert hint in error["hint"]
    assert code != "runNotRunning" or error["details"] == {"run": address.id, "phase": "queued"}


async def test_a_waiting_task_is_approved_once() -> None:
    world = World.make()
    address = await _created(world)
    path = f"/runs/{address.id}/tasks/{run_task_id(address.id, 'build')}/actions"
    async with world.http() as http:
        (early,) = (await http.put(path, json={"action_type": "approve"})).json()
        await world.append(address, RunStarted(), RunTaskApprovalRequested("build"))
        first = await http.put(path, json={"action_type": "approve"})
        (again,) = (await http.put(path, json={"action_type": "approve"})).json()
        (unknown,) = (await http.put(f"/runs/{address.id}/tasks/x/actions", json={"action_type": "approve"})).json()
        run = (await http.get(f"/runs/{address.id}")).json()["run"]
    assert early["code"] == "runTaskNotWaitingApproval"
    assert first.status_code == 200
    assert again["code"] == "runTaskAlreadyApproved"
    assert unknown["code"] == "runTaskDoesNotExist"
    (view,) = run["tasks"].values()
    assert (view["approved"], view["annotations"]) == (True, {"approvers": '["user:admin"]'})
    assert (await _types(world, address)).count(RunTaskApproved) == 1


async def test_concurrent_approvals_lose_nothing() -> None:
    """One approves, with name and time; the other is told that it is approved already. Nothing is overwritten."""
    log = MemoryLog()
    worlds = [World.make(log=log) for _ in range(6)]
    address = await _created(worlds[0])
    await worlds[0].append(address, RunStarted(), RunTaskApprovalRequested("build"))
    path = f"/runs/{address.id}/tasks/build/actions"

    async def approve(world: World) -> tuple[int, str]:
        async with world.http() as http:
            answer = await http.put(path, json={"action_type": "approve"})
            return answer.status_code, answer.json()[0]["code"] if answer.is_error else ""

    answers = await asyncio.gather(*(approve(world) for world in worlds))
    assert sorted(answers) == [(200, ""), *[(400, "runTaskAlreadyApproved")] * 5]
    async with worlds[0].http() as http:
        (task,) = (await http.get(f"/runs/{address.id}")).json()["run"]["tasks"].values()
    last = (await log.history(address))[-1].commit
    assert task["annotations"] == {"approvers": f'["{last.actor}"]'}
    assert datetime.fromisoformat(task["approval_time"]) == last.time


async def test_concurrent_actions_lose_nothing() -> None:
    log = MemoryLog()
    worlds = [World.make(log=log) for _ in range(2)]
    address = await _created(worlds[0])
    await worlds[0].append(address, RunStarted(), RunTaskApprovalRequested("build"))
    path = f"/runs/{address.id}/tasks/build/actions"
    bodies = [{"action_type": "approve"}, {"action_type": "setannotations", "annotations": {"ticket": "7"}}]
    async with worlds[0].http() as one, worlds[1].http() as other:
        answers = await asyncio.gather(*(http.put(path, json=b) for http, b in zip((one, other), bodies, strict=True)))
        assert [answer.status_code for answer in answers] == [200, 200]
        (task,) = (await one.get(f"/runs/{address.id}")).json()["run"]["tasks"].values()
    assert task["annotations"] == {"ticket": "7", "approvers": '["user:admin"]'}


async def test_annotations_of_a_task_are_replaced() -> None:
    world = World.make()
    address = await _created(world)
    async with world.client() as client:
        for annotations in ({"ticket": "7", "by": "ada"}, {"ticket": "8"}, {"ticket": "8"}):
            await client.runs.annotate(address.id, "build", annotations)
        (task,) = (await client.runs.get(address.id)).tasks.values()
    assert task.annotations == {"ticket": "8"}
    assert (await _types(world, address)).count(RunTaskAnnotated) == 2


async def test_concurrent_annotations_lose_nothing() -> None:
    world = World.make()
    address = await _created(world)
    asked: list[str] = []

    async def note(name: str) -> None:
        def added(before: Mapping[str, str]) -> dict[str, str]:
            asked.append(name)
            return {**before, name: "x"}

        async with world.client() as client:
            assert name in await client.runs.change_annotations(address.id, "build", added)

    names = ["one", "two", "three"]
    await asyncio.gather(*map(note, names))
    async with world.client() as client:
        (task,) = (await client.runs.get(address.id)).tasks.values()
    assert task.annotations == dict.fromkeys(names, "x")
    assert len(asked) > len(names)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"action_type": "setannotations", "annotations": {"approvers": "[]"}}, "says who approved"),
        ({"action_type": "setannotations", "annotations": {"a": "x" * 20_000}}, "at most 16384"),
        ({"action_type": "approve", "annotations": {"a": "b"}}, "an approval takes no annotations"),
    ],
)
async def test_annotations_that_cannot_be(body: dict[str, object], message: str) -> None:
    world = World.make()
    address = await _created(world)
    async with world.http() as http:
        answer = await http.put(f"/runs/{address.id}/tasks/build/actions", json=body)
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (400, "invalidAnnotations")
    assert message in error["message"]


async def test_an_action_that_rests_on_what_was_seen_is_refused_when_that_has_changed() -> None:
    world = World.make()
    address = await _created(world)
    path = f"/runs/{address.id}/actions"
    async with world.http() as http:
        assert (await http.get(f"/runs/{address.id}")).json()["change_groups_update_tokens"] == ""
        token = (await http.get(f"/runs/{address.id}?changegroup=mine")).json()["change_groups_update_tokens"]
        decoded = json.loads(base64.b64decode(token))
        assert decoded == {"change_groups_values": {"mine": f"{address.id}@1"}}
        await world.append(address, RunStarted())
        refused = await http.put(path, json={"action_type": "stop", "change_groups_update_tokens": token})
        token = (await http.get(f"/runs/{address.id}?changegroup=mine")).json()["change_groups_update_tokens"]
        accepted = await http.put(path, json={"action_type": "stop", "change_groups_update_tokens": token})
        again = await http.put(path, json={"action_type": "stop", "change_groups_update_tokens": token})
        none = await http.put(path, json={"action_type": "stop", "change_groups_update_tokens": "bm9uZQ=="})
        empty = base64.b64encode(b'{"change_groups_values": {}}').decode()
        ignored = await http.put(path, json={"action_type": "stop", "change_groups_update_tokens": empty})
    assert [answer.status_code for answer in (refused, accepted, again, none, ignored)] == [409, 200, 409, 400, 200]
    assert refused.json()[0]["code"] == again.json()[0]["code"] == "concurrentUpdate"
    assert none.json()[0]["code"] == "invalidChangeGroupsToken"


class Busy(MemoryLog):
    """A log in which another writer wins the first few appends."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def append(self, commit: NewCommit) -> Position:
        if commit.version > 1 and self.times:
            self.times -= 1
            event = RunTaskApprovalRequested("build")
            other = Head(commit.version - 1, commit.expected).next_commit(
                commit.address, (event,), time=commit.time, actor="scheduler"
            )
            await super().append(other)
        return await super().append(commit)


async def test_a_decision_that_comes_late_is_made_again() -> None:
    world = World.make(log=Busy(3))
    address = await _created(world)
    async with world.http() as http:
        answer = await http.put(f"/runs/{address.id}/actions", json={"action_type": "cancel"})
    assert answer.status_code == 200
    assert (await _types(world, address))[-1] is RunCancelled


async def test_a_decision_that_always_comes_late_is_a_conflict() -> None:
    world = World.make(log=Busy(100))
    address = await _created(world)
    async with world.http() as http:
        answer = await http.put(f"/runs/{address.id}/actions", json={"action_type": "cancel"})
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (409, "concurrentUpdate")


async def test_an_executor_is_deleted_once() -> None:
    world = World.make()
    address = Address(partition_of("e1", 4), "executor", "e1")
    await world.append(address, REGISTERED)
    async with world.http() as http:
        first = await http.delete("/executors/e1")
        second = await http.delete("/executors/e1")
    assert (first.status_code, first.content) == (204, b"")
    assert second.status_code == 404
    assert (await _types(world, address)) == [ExecutorRegistered, ExecutorDeleted]


async def test_executors_are_listed() -> None:
    world = World.make()
    executor = RegisteredExecutor("e1", REGISTERED, ExecutorState.LOST)
    world.reads.executor_records = (ExecutorRecord(executor, Head(1, 1), 0, 3),)
    async with world.http() as http:
        (listed,) = (await http.get("/executors")).json()["executors"]
    assert (listed["executor_id"], listed["state"], listed["active_tasks"]) == ("e1", "lost", 3)


async def test_an_executor_is_drained_and_undrained_once_each() -> None:
    world = World.make()
    address = Address(partition_of("e1", 4), "executor", "e1")
    await world.append(address, REGISTERED)
    asked = ("drain", "drain", "undrain", "undrain", "drain")
    async with world.http() as http:
        for action in asked:
            done = await http.put("/executors/e1/actions", json={"action_type": action})
            assert done.status_code == 204
        unknown = await http.put("/executors/e2/actions", json={"action_type": "drain"})
        other = await http.put("/executors/e1/actions", json={"action_type": "shoot"})
    assert (unknown.status_code, other.status_code) == (404, 400)
    history = await world.log.history(address)
    events = [event for stored in history[1:] for event in stored.commit.events]
    assert events == [ExecutorDrained(), ExecutorUndrained(), ExecutorDrained()]
