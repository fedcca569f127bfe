"""The history of a run: its changes give the run as of each commit, as JSON and as events that go on after a break."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runstream.client import Client, ClientError
from runstream.commits import Head, Position
from runstream.database.runs import ReadRun
from runstream.events.event import DomainEvent
from runstream.events.executor_task import (
    ExecutorTaskFinished,
    ExecutorTaskPhase,
    ExecutorTaskStarted,
    ExecutorTaskStopRequested,
)
from runstream.events.run import RunArchived, RunCreated, RunDeleted, RunFinished, RunNumbered, RunResultSet, RunStarted
from runstream.events.skip import CommitSkipped
from runstream.gateway.responses import run_answer
from runstream.gateway.runs.history import MAX_COMMITS, history_answer
from runstream.ids import executor_task_id, run_task_id
from runstream.json_changes import with_changes
from runstream.log.runs import head_of
from runstream.projections.as_of import RunsAsOf
from runstream.run_states import RunResult
from runstream.skips import hash_of
from runstream.subjects import Address, partition_of
from runstream.telemetry.http_server import HttpServer
from tests.domain.test_world import play
from tests.domain.world import World as Domain
from tests.factories import task_assigned
from tests.gateway.world import BEGUN, TOKEN, World, run_body
from tests.gateway.world import task as run_task
from tests.projections.test_fsck import logged

P = partition_of("/project/web", 4)


def _told(read: ReadRun) -> Any:
    return json.loads(msgspec.json.encode(run_answer(read.record.run, read.config, read.record.executor_tasks)))


async def _require_history_of(past: RunsAsOf, run_id: str, partition: int = 0) -> list[dict[str, Any]]:
    """The commits of a history, whose changes give the run as of each of them."""
    history = json.loads(msgspec.json.encode(await history_answer(await past.history(run_id), 1, MAX_COMMITS)))
    assert [commit["number"] for commit in history["commits"]] == [*range(1, history["count"] + 1)]
    told = history["answer"]
    for commit in history["commits"]:
        told = with_changes(told, commit["changes"], commit["removals"])
        assert told == _told(await past.run(run_id, Position.parse(commit["position"]))), commit
    return list(history["commits"])


@given(st.randoms(use_true_random=False), st.integers(10, 60))
@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_changes_up_to_a_commit_give_the_run_as_of_that_commit(
    monkeypatch: pytest.MonkeyPatch, random: Random, moves: int
) -> None:
    monkeypatch.setattr("runstream.log.runs.require_uuid", lambda text, _: text)
    world = Domain(random)
    play(world, random, moves)
    past = RunsAsOf(await logged(world))
    for run_id in random.sample(sorted(world.truth.runs), min(4, len(world.truth.runs))):
        await _require_history_of(past, run_id)


async def _created(world: World) -> tuple[Address, Address]:
    """A run of one task, and the executor task of its first attempt."""
    async with world.http() as http:
        run = (await http.post("/runs", json=run_body())).json()["run"]
    (task,) = run["tasks"]
    return Address(P, "run", run["id"]), Address(P, "task", executor_task_id(run["id"], task, 1), "e1")


async def _assign(world: World, run: Address, task: Address) -> None:
    stored = await world.log.first(run)
    assert stored is not None
    (created,) = stored.commit.events
    assert isinstance(created, RunCreated)
    key = run_task_id(run.id, "build")
    await world.append(task, task_assigned(run_id=run.id, run_task_id=key, run_config=created.run_config))


async def _play(world: World, run: Address, task: Address) -> None:
    """Take a run from its number to its end."""
    await world.append(run, RunNumbered(7, 1), RunStarted())
    await _assign(world, run, task)
    await world.append(task, ExecutorTaskStarted(BEGUN))
    await world.append(task, ExecutorTaskFinished(BEGUN, ExecutorTaskPhase.SUCCESS, ""))
    await world.append(run, RunResultSet(RunResult.SUCCESS), RunFinished(), RunArchived())


async def test_a_commit_that_is_skipped_later_changes_the_run_at_the_decision() -> None:
    world = World.make()
    run, task = await _created(world)
    broken = world.log.put(P, world.log.subjects.of(run), b"no commit")
    started = Head(2, broken.sequence).next_commit(run, [RunStarted()], time=BEGUN, actor="scheduler")
    position = await world.log.append(started)
    message = world.log.streams[P].messages[broken.sequence - 1]
    decided = CommitSkipped(hash_of(message), 1, 2, str(broken), "test")
    await world.append(Address(P, "skip", f"run.{run.id}"), decided)
    await _assign(world, run, task)
    _, unread, behind, decision, assigned = await _require_history_of(RunsAsOf(world.log), run.id)
    assert (unread["position"], unread["events"], unread["changes"], unread["version"]) == (str(broken), [], [], 0)
    assert "cannot be read" in unread["error"]
    assert (behind["position"], behind["changes"]) == (str(position), [])
    assert behind["error"] == f"an earlier commit of {run.aggregate} is parked"
    assert decision["aggregate"] == f"skip/run.{run.id}"
    assert [["run", "phase"], "running"] in decision["changes"]
    assert (assigned["task"], assigned["error"]) == ("build", "")


async def test_a_part_of_a_history_begins_with_the_run_after_its_first_commit() -> None:
    world = World.make()
    run, task = await _created(world)
    await _play(world, run, task)
    async with world.http() as http:
        whole = (await http.get(f"/runs/{run.id}/history")).json()
        assert (whole["count"], whole["next"], whole["ended"]) == (6, None, True)
        assert whole["commits"][0]["changes"] == []
        for number in range(1, 7):
            part = (await http.get(f"/runs/{run.id}/history", params={"from": number, "count": 1})).json()
            assert part["commits"] == [whole["commits"][number - 1]]
            assert part["next"] == (number + 1 if number < 6 else None)
            at = {"at": part["commits"][0]["position"]}
            assert part["answer"] == (await http.get(f"/runs/{run.id}", params=at)).json()
        beyond = (await http.get(f"/runs/{run.id}/history", params={"from": 7})).json()
        assert (beyond["commits"], beyond["next"]) == ([], None)
        assert beyond["answer"] == (await http.get(f"/runs/{run.id}")).json()


async def test_a_part_ends_after_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.gateway.runs.history.MAX_BYTES", 1)
    world = World.make()
    run, task = await _created(world)
    await _play(world, run, task)
    async with world.http() as http:
        part = (await http.get(f"/runs/{run.id}/history")).json()
    assert (len(part["commits"]), part["next"], part["count"]) == (1, 2, 6)


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("?from=0", {}, "invalidParameter"),
        ("?count=1001", {}, "invalidParameter"),
        (f"?after=1/{P}/1", {}, "invalidParameter"),
        ("?from=2", {"Accept": "text/event-stream"}, "invalidParameter"),
        ("?after=7", {"Accept": "text/event-stream"}, "invalidPosition"),
    ],
)
async def test_a_part_that_does_not_exist_is_refused(query: str, headers: dict[str, str], code: str) -> None:
    world = World.make()
    run, _ = await _created(world)
    async with world.http(**headers) as http:
        answer = await http.get(f"/runs/{run.id}/history{query}")
    assert (answer.status_code, answer.json()[0]["code"]) == (400, code)


@dataclass
class Sent:
    """A server-sent event."""

    kind: str
    place: str
    data: Any


async def _events(url: str, run: str, after: str = "", query: str = "") -> AsyncGenerator[Sent, None]:
    """The events of a history; a break of the connection ends them."""
    headers = {"Authorization": f"token {TOKEN}", "Accept": "text/event-stream"}
    headers |= {"Last-Event-ID": after} if after else {}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        http.stream("GET", f"{url}/api/v1alpha/runs/{run}/history{query}") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, fields[name] = (*line.partition(": "),)
            elif fields:
                yield Sent(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
                fields = {}


async def test_a_followed_history_is_complete_across_breaks_and_ends_with_the_run() -> None:
    world = World.make()
    run, task = await _created(world)
    await world.append(run, RunNumbered(7, 1))
    async with world.served() as url:
        events = _events(url, run.id)
        base, *seen = [await anext(events) for _ in range(3)]
        assert (base.kind, base.place, [one.data["number"] for one in seen]) == ("run", "", [1, 2])
        await world.append(run, RunStarted())
        seen.append(await anext(events))
        await events.aclose()
        await _assign(world, run, task)
        await world.append(task, ExecutorTaskStarted(BEGUN))
        events = _events(url, run.id, seen[-1].place)
        seen += [await anext(events), await anext(events)]
    # The gateway has gone, and another one comes.
    with pytest.raises((httpx2.TransportError, StopAsyncIteration)):
        await anext(events)
    await world.append(task, ExecutorTaskFinished(BEGUN, ExecutorTaskPhase.SUCCESS, ""))
    world.context.stopping.clear()
    async with world.served() as url:
        events = _events(url, run.id, seen[-1].place)
        seen.append(await anext(events))
        await world.append(run, RunResultSet(RunResult.SUCCESS), RunFinished(), RunArchived())
        seen.append(await anext(events))
        assert [one.kind async for one in events] == ["end"]
        assert [one.kind async for one in _events(url, run.id, seen[-1].place)] == ["end"]
        assert [one.kind async for one in _events(url, run.id, "1/0/77777")] == ["run", *["commit"] * 7, "end"]
    async with world.http() as http:
        whole = (await http.get(f"/runs/{run.id}/history")).json()
    assert [one.data for one in seen] == whole["commits"]
    assert base.data == whole["answer"]
    assert [one.place for one in seen] == [commit["position"] for commit in whole["commits"]]


async def test_a_deleted_run_has_its_history() -> None:
    world = World.make()
    run, task = await _created(world)
    await _play(world, run, task)
    await world.append(run, RunDeleted(""))
    assert (await _require_history_of(RunsAsOf(world.log), run.id))[-1]["events"][0]["type"] == "RunDeleted"
    async with world.http() as http:
        assert (await http.get(f"/runs/{run.id}/history")).json()["ended"]
        missing = await http.get("/runs/0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11/history")
    assert (missing.status_code, missing.json()[0]["code"]) == (404, "runDoesNotExist")


async def test_the_history_of_a_run_of_many_tasks_has_only_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more tasks than the server filters subjects."""
    monkeypatch.setattr("runstream.log.tail._FILTERS", 3)
    world = World.make()
    async with world.http() as http:
        tasks = {f"t{number}": {**run_task(f"t{number}")} for number in range(10)}
        created = (await http.post("/runs", json=run_body(run_config_tasks=tasks))).json()["run"]
    run = Address(P, "run", created["id"])
    await world.append(run, RunNumbered(1, 1), RunStarted())
    other, _ = await _created(world)
    await world.append(other, RunStarted())
    for key, told in created["tasks"].items():
        task = Address(P, "task", executor_task_id(run.id, key, 1), "e1")
        config = created["run_config_id"]
        assigned = task_assigned(run_id=run.id, run_task_id=key, task=told["name"], run_config=config)
        await world.append(task, assigned, ExecutorTaskStarted(BEGUN))
    commits = await _require_history_of(RunsAsOf(world.log), run.id)
    assert [commit["task"] for commit in commits[2:]] == [told["name"] for told in created["tasks"].values()]
    for key, commit in zip(created["tasks"], commits[2:], strict=True):
        assert {tuple(path[:3]) for path, _ in commit["changes"]} == {("run", "tasks", key)}


async def test_each_commit_names_what_caused_it() -> None:
    world = World.make()
    run, task = await _created(world)
    started = await world.log.append(
        (await _head(world, run)).next_commit(
            run, [RunStarted()], time=BEGUN, actor="scheduler", cause=await _id(world, run)
        )
    )
    assert started.partition == P
    await _assign(world, run, task)
    async with world.http() as http:
        assert (await http.put(f"/runs/{run.id}/actions", json={"action_type": "stop"})).status_code == 200
    asked = await _id(world, run)
    for address, cause in ((task, asked), (task, f"timeout:{task.aggregate}"), (task, "lost:e1"), (run, f"{run.id}@3")):
        decided: list[DomainEvent] = [ExecutorTaskStopRequested()] if address is task else [RunFinished()]
        head = await _head(world, address)
        await world.log.append(head.next_commit(address, decided, time=BEGUN, actor="scheduler", cause=cause))
    async with world.http() as http:
        commits = (await http.get(f"/runs/{run.id}/history")).json()["commits"]
        part = (await http.get(f"/runs/{run.id}/history", params={"from": 5})).json()["commits"]
    assert [(commit["cause_kind"], commit["cause_number"]) for commit in commits] == [
        ("request", None),
        ("commit", 1),
        ("", None),
        ("request", None),
        ("commit", 4),
        ("timeout", None),
        ("executor_lost", None),
        ("commit", 4),
    ]
    assert (commits[3]["actor"], commits[3]["events"][0]["type"]) == ("user:admin", "RunStopRequested")
    assert part == commits[4:]
    async with world.served() as url:
        events = _events(url, run.id, commits[4]["position"])
        assert [(await anext(events)).data for _ in range(3)] == commits[5:]
        await events.aclose()


async def _head(world: World, address: Address) -> Head:
    return head_of(await world.log.history(address))


async def _id(world: World, address: Address) -> str:
    last = await world.log.last(address)
    assert last is not None
    return last.commit.id


async def test_the_client_has_the_run_as_of_each_commit_and_follows_it_to_its_end() -> None:
    world = World.make()
    run, task = await _created(world)
    await _play(world, run, task)
    async with world.client() as client:
        history = await client.runs.history(run.id, first=2)
        moments = list(history.moments())
        assert [(commit.number, found.phase) for commit, found in moments] == [
            *((number, "running") for number in range(2, 6)),
            (6, "finished"),
        ]
        assert moments[-1][1] == await client.runs.get(run.id)
        assert (history.next, history.count, history.ended) == (None, 6, True)
    async with world.served() as url, Client(url, token=TOKEN) as client:
        followed = [(commit, found) async for commit, found in client.runs.follow(run.id)]
        assert followed[1:] == moments
        assert followed[0][1].phase == "queued"
        with pytest.raises(ClientError, match="does not exist"):
            await anext(client.runs.follow("0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"))


async def test_the_client_follows_a_run_across_a_restart_of_the_gateway() -> None:
    world = World.make()
    run, task = await _created(world)
    await world.append(run, RunNumbered(7, 1), RunStarted())
    server = HttpServer(world.app)
    await server.start()
    port = int(server.url.rpartition(":")[2])
    async with Client(server.url, token=TOKEN) as client:
        followed = client.runs.follow(run.id)
        seen = [await anext(followed), await anext(followed)]
        await server.stop()
        await _assign(world, run, task)
        await world.append(run, RunResultSet(RunResult.STOPPED), RunFinished(), RunArchived())
        server = HttpServer(world.app, port=port)
        await server.start()
        seen += [each async for each in followed]
        await server.stop()
    assert [commit.number for commit, _ in seen] == [1, 2, 3, 4]
    assert seen[-1][1].result == "stopped"


async def test_a_response_without_the_run_config_is_the_same_but_for_it() -> None:
    world = World.make()
    run, task = await _created(world)
    await _play(world, run, task)
    async with world.http() as http:
        last = (await http.get(f"/runs/{run.id}/history")).json()["commits"][-1]["position"]
        of_run = f"/runs/{run.id}"
        for path, params in ((of_run, {}), (of_run, {"at": last}), (f"{of_run}/history", {})):
            whole = (await http.get(path, params=params)).json()
            brief = (await http.get(path, params={**params, "config": "false"})).json()
            answer = whole.get("answer", whole)
            assert answer["run_config"]["tasks"], path
            answer["run_config"] = None
            assert brief == whole, path
    async with world.served() as url:
        events = _events(url, run.id, query="?config=false")
        assert (await anext(events)).data["run_config"] is None
        await events.aclose()
