"""The runs of projects and users by number, as existing clients know them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from runstream.api import RunSummary
from runstream.codec import decode
from runstream.domain.config.permissions import RELATIONS
from runstream.errors import NotExistError
from runstream.events.run import (
    RunArchived,
    RunCancelled,
    RunNumbered,
    RunStarted,
    RunStopRequested,
    RunTaskApprovalRequested,
    RunTaskApproved,
    RunTaskLogDeleted,
)
from runstream.gateway.routes import owned_runs
from runstream.gateway.routes.badges import badge_of, svg
from runstream.ids import run_task_id
from runstream.run_states import RunPhase, RunResult
from runstream.subjects import Address, partition_of
from tests.gateway.folding import FoldedLog
from tests.gateway.owners import Owners
from tests.gateway.world import TOKEN, run_body, task

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Owners]:
    monkeypatch.setattr(owned_runs, "NUMBER_SECONDS", 0.001)  # there is no scheduler
    async with Owners.serving(tmp_path, reads=FoldedLog) as owners:
        yield owners


async def made(owners: Owners, root: str, number: int, ref: str = "branch/main", **changes: Any) -> Address:
    """Make the run of this number; its second task needs an approval."""
    steps = [
        {"type": "clone"},
        {"type": "run", "name": "make", "command": "make all", "shell": "/bin/bash"},
        {"type": "save_cache", "key": "k"},
    ]
    container = {"image": "busybox"}
    tasks = {
        "a": task("build", steps=steps, runtime={"type": "pod", "containers": [container]}),
        "b": task("deploy", needs_approval=True, depends={"a": {"task_id": "a"}}, task_timeout_interval=5),
    }
    body = run_body(group=f"{root}/{ref}", run_config_tasks=tasks, annotations={"x": "y"}, **changes)
    async with owners.http(TOKEN) as http:
        run_id = (await http.post("/runs", json=body)).json()["run"]["id"]
    address = Address(partition_of(root, 4), "run", run_id)
    await owners.world.append(address, RunNumbered(number, number * 10))
    return address


async def test_a_project_lists_shows_and_changes_its_runs(owners: Owners) -> None:
    ann, token = await owners.user("ann")
    project = await owners.project("user/ann", "/x", name="web")
    runs = [await made(owners, f"/project/{project}", number, ref) for number, ref in enumerate(
        ["branch/main", "branch/other", "tag/v1", "branch/main"], 1
    )]  # fmt: skip
    first, second = runs[0], runs[1]
    build, deploy = (run_task_id(first.id, name) for name in ("build", "deploy"))
    await owners.world.append(first, RunStarted(), RunTaskApprovalRequested("deploy"))
    base = "/projects/user%2Fann%2Fweb/runs"
    async with owners.http(token) as http:
        listed = await http.get(base)
        assert listed.headers["X-Agola-Cursor"] == ""
        assert [one["number"] for one in listed.json()] == [4, 3, 2, 1]
        enqueued = listed.json()[3]["enqueue_time"]
        assert listed.json()[3] == {
            "number": 1,
            "name": "main",
            "annotations": {"x": "y"},
            "phase": "running",
            "result": "unknown",
            "tasks_waiting_approval": [deploy],
            "enqueue_time": enqueued,
            "start_time": listed.json()[3]["start_time"],
            "end_time": None,
        }
        shown = (await http.get(f"{base}/1")).json()
        about: dict[str, Any] = {
            "status": "notstarted",
            "timedout": False,
            "approved": False,
            "approval_annotations": None,
            "start_time": None,
            "end_time": None,
        }
        waiting = {
            "id": deploy, "name": "deploy", "level": 1, "waiting_approval": True, "task_timeout_interval": 5,
            "depends": {build: {"task_id": build, "conditions": ["on_success"]}},
        }  # fmt: skip
        ready = {"id": build, "name": "build", "level": 0, "waiting_approval": False, "depends": {}}
        assert shown == {
            **listed.json()[3],
            "setup_errors": None,
            "stopping": False,
            "tasks": {build: {**about, **ready, "task_timeout_interval": 0}, deploy: {**about, **waiting}},
            "can_restart_from_scratch": False,
            "can_restart_from_failed_tasks": False,
        }
        one = (await http.get(f"{base}/1/tasks/{build}")).json()
        assert one.pop("containers") == [{"image": "busybox"}]
        assert one.pop("setup_step") == {
            "phase": "notstarted", "name": "Task setup", "start_time": None, "end_time": None,
        }  # fmt: skip
        steps = one.pop("steps")
        assert one == {**about, "id": build, "name": "build", "waiting_approval": False, "task_timeout_interval": 0}
        never = {
            "phase": "notstarted",
            "start_time": None,
            "end_time": None,
            "exit_status": None,
            "log_archived": False,
        }
        assert steps == [
            {**never, "type": "run", "name": "clone", "command": "", "shell": "/bin/sh -e"},
            {**never, "type": "run", "name": "make", "command": "make all", "shell": "/bin/bash"},
            {**never, "type": "save_cache", "name": "save cache", "command": "", "shell": ""},
        ]

        approved = await http.put(f"{base}/1/tasks/{deploy}/actions", json={"action_type": "approve"})
        assert (approved.status_code, approved.content) == (200, b"")
        after = (await http.get(f"{base}/1")).json()["tasks"][deploy]
        assert after["approval_annotations"] == {"approvers": json.dumps([ann.id])}
        before = await http.put(f"{base}/1/actions", json={"action_type": "stop"})
        assert (before.status_code, before.json()["stopping"]) == (200, False)
        assert (await http.get(f"{base}/1")).json()["stopping"]
        cancelled = await http.put(f"{base}/2/actions", json={"action_type": "cancel"})
        assert cancelled.json()["phase"] == "queued"
        await owners.world.append(second, RunArchived())
        restarted = await http.put(f"{base}/2/actions", json={"action_type": "restart", "from_start": True})
        assert (restarted.status_code, restarted.json()["phase"]) == (200, "queued")
        events = {event: stored.commit.actor
                  for address in (first, second) for stored in await owners.world.log.history(address)
                  for event in map(type, stored.commit.events)}  # fmt: skip
        assert {events[kind] for kind in (RunTaskApproved, RunStopRequested, RunCancelled)} == {"user:ann"}


async def test_pages_of_runs(owners: Owners) -> None:
    _, token = await owners.user("ann")
    project = await owners.project("user/ann", "/x")
    for number, ref in enumerate(["branch/main", "branch/a%2Fb", "branch/main", "tag/v1", "branch/main"], 1):
        await made(owners, f"/project/{project}", number, ref)
    base = f"/projects/{project}/runs"
    async with owners.http(token) as http:

        async def pages(**query: Any) -> list[list[int]]:
            found = []
            while True:
                page = await http.get(base, params=query)
                assert page.status_code == 200, page.text
                found.append([one["number"] for one in page.json()])
                if not (cursor := page.headers["X-Agola-Cursor"]):
                    return found
                query = {"cursor": cursor, "limit": query["limit"]}

        assert await pages(limit=2) == [[5, 4], [3, 2], [1]]
        assert await pages(limit=2, sortdirection="asc") == [[1, 2], [3, 4], [5]]
        assert await pages(limit=2, subgroup="branch/main") == [[5, 3], [1]]  # the cursor keeps the subgroup
        assert await pages(limit=0, subgroup="branch/a%2Fb") == [[2]]
        assert await pages(limit=0, start=3) == [[2, 1]]
        assert await pages(limit=1, phase=["queued"], subgroup="tag") == [[4]]
        assert await pages(limit=0, result="failed") == [[]]
        cursor = (await http.get(base, params={"limit": 1})).headers["X-Agola-Cursor"]
        assert json.loads(base64.b64decode(cursor)) == {
            "StartRunCounter": 5, "SortDirection": "desc", "SubGroup": "", "PhaseFilter": None, "ResultFilter": None,
            "Of": f"/project/{project}",
        }  # fmt: skip
        elsewhere = await http.get("/users/ann/runs", params={"cursor": cursor})
        refused(elsewhere, 400, "invalidCursor")
        of_model = json.dumps({"StartRunCounter": 3, "SortDirection": "desc", "SubGroup": "", "PhaseFilter": None})
        continued = await http.get(base, params={"cursor": base64.b64encode(of_model.encode()).decode()})
        assert [one["number"] for one in continued.json()] == [2, 1]
        other = base64.b64encode(b'{"Start": "a", "SortDirection": "asc", "Of": "/users"}').decode()
        bad: dict[str, dict[str, Any]] = {
            "invalidLimit": {"limit": "x"},
            "invalidSortDirection": {"sortdirection": "up"},
            "invalidRunNumber": {"start": "x"},
            "invalidParameter": {"phase": "lost"},
            "unknownParameter": {"group": "x"},
        }
        for code, query in bad.items():
            refused(await http.get(base, params=query), 400, code)
        for wrong in ("cursor=x", f"cursor={quote(other)}", f"cursor={quote(cursor)}&start=1", "limit=-1"):
            assert (await http.get(f"{base}?{wrong}")).status_code == 400


async def test_without_a_limit_all_runs_are_listed(owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned_runs, "MAX_LIMIT", 2)  # of one read
    _, token = await owners.user("ann")
    project = await owners.project("user/ann", "/x")
    most = 5
    for number in range(1, most + 1):
        await made(owners, f"/project/{project}", number)
    async with owners.http(token) as http:
        for query, numbers in (
            ("limit=0", range(most, 0, -1)),
            ("limit=0&sortdirection=asc&start=3", range(4, most + 1)),
        ):
            listed = await http.get(f"/projects/{project}/runs?{query}")
            assert [one["number"] for one in listed.json()] == list(numbers)
            assert listed.headers["X-Agola-Cursor"] == ""


async def test_a_task_that_does_not_wait_is_approved_too(owners: Owners) -> None:
    ann, token = await owners.user("ann")
    project = await owners.project("user/ann", "/x")
    address = await made(owners, f"/project/{project}", 1)
    build = run_task_id(address.id, "build")
    path, approve = f"/projects/{project}/runs/1/tasks/{build}", {"action_type": "approve"}
    async with owners.http(token) as http:
        approved = await http.put(f"{path}/actions", json=approve)
        assert (approved.status_code, approved.content) == (200, b"")
        shown = (await http.get(path)).json()
        assert shown["approval_annotations"] == {"approvers": json.dumps([ann.id])}
        assert (shown["approved"], shown["waiting_approval"]) == (False, False)
        refused(await http.put(f"{path}/actions", json=approve), 400, "runTaskAlreadyApproved")
        refused(await http.put(f"{path}/actions", json={"action_type": "reject"}), 400, "invalidBody")


async def test_the_response_to_a_restart_has_the_number_that_a_scheduler_gives(
    owners: Owners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_runs, "NUMBER_SECONDS", 60.0)
    _, token = await owners.user("ann")
    project = await owners.project("user/ann", "/x")
    address = await made(owners, f"/project/{project}", 1)
    await owners.world.append(address, RunCancelled(""), RunArchived())
    log = owners.world.log
    end = await log.end(address.partition)
    async with owners.http(token) as http, asyncio.TaskGroup() as group:
        body = {"action_type": "restart", "from_start": True}
        restart = group.create_task(http.put(f"/projects/{project}/runs/1/actions", json=body))
        async with log.read(address.partition, end) as reader:
            created: list[Address] = []
            while not created:
                addresses = [decode(message).commit.address for message in await reader.next_batch()]
                created = [one for one in addresses if one.kind == "run"]
        await owners.world.append(created[0], RunNumbered(7, 70))
        assert (await restart).json()["number"] == 7


def refused(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response.json()[0]["code"]) == (status, code), response.text


async def test_bad_requests_about_runs(owners: Owners) -> None:
    _, token = await owners.user("ann")
    project = await owners.project("user/ann", "/x")
    address = await made(owners, f"/project/{project}", 1)
    base, build = f"/projects/{project}/runs", run_task_id(address.id, "build")
    async with owners.http(token) as http:
        refused(await http.get("/projects/gone/runs"), 404, "projectDoesNotExist")
        refused(await http.get("/users/gone/runs"), 404, "userDoesNotExist")
        for path in (f"{base}/7", f"{base}/7/tasks/{build}"):
            refused(await http.get(path), 404, "runDoesNotExist")
        refused(await http.get(f"{base}/x"), 400, "invalidRunNumber")
        refused(await http.get(f"{base}/1/tasks/gone"), 404, "runTaskDoesNotExist")
        logs = f"{base}/1/tasks/{build}/logs"
        for query in ({}, {"step": "x"}, {"step": "-1"}, {"setup": "1", "step": "0"}):
            refused(await http.get(logs, params=query), 400, "invalidRunTaskStepNumber")
        refused(await http.get(logs, params={"step": "9"}), 404, "runTaskStepDoesNotExist")
        refused(await http.put(f"{base}/1/actions", json={"action_type": "jump"}), 400, "invalidBody")
        refused(await http.put(f"{base}/1/actions", json={"action_type": "stop"}), 400, "runNotRunning")
        refused(await http.put(f"{base}/1/actions", json={"action_type": "restart"}), 400, "runCannotBeRestarted")
        approve = {"action_type": "approve"}
        refused(await http.put(f"{base}/1/tasks/gone/actions", json=approve), 404, "runTaskDoesNotExist")
        refused(await http.delete(logs, params={"step": "0"}), 400, "logNotStored")


async def test_logs_are_sent_and_deleted(owners: Owners) -> None:
    _, token = await owners.user("ann")
    project = await owners.project("user/ann", "/x")
    address = await made(owners, f"/project/{project}", 1)
    owners.world.step_logs.chunks = [b"hello ", b"world"]
    owners.world.step_logs.stored = True
    path = f"/projects/{project}/runs/1/tasks/{run_task_id(address.id, 'build')}/logs"
    async with owners.http(token) as http:
        for query in ("?setup", "?step=1", "?step=1&follow"):
            sent = await http.get(f"{path}{query}")
            assert (sent.status_code, sent.text) == (200, "hello world")
            assert sent.headers["content-type"] == "text/plain;charset=UTF-8"
            assert sent.headers["cache-control"] == "no-cache"
        assert [(key.step, follow) for key, follow in owners.world.step_logs.opened] == [
            (None, False), (1, False), (1, True),
        ]  # fmt: skip
        gone = await http.delete(f"{path}?step=1")
        assert (gone.status_code, gone.content) == (204, b"")
        assert [key.step for key in owners.world.step_logs.deleted] == [1]
        (deletion,) = (await owners.world.log.history(address))[-1:]
        assert deletion.commit.events == (RunTaskLogDeleted("build", 1, 1),)
        assert (deletion.commit.actor, gone.headers["Runstream-Position"]) == ("user:ann", str(deletion.position))
        owners.world.step_logs.stored = False
        owners.world.step_logs.error = NotExistError("log doesn't exist", code="logDoesNotExist")
        missing = await http.get(f"{path}?step=1")
        refused(missing, 404, "logDeleted")
        assert "user:ann deleted it at" in missing.json()[0]["message"]
        refused(await http.get(f"{path}?step=0"), 404, "logDoesNotExist")
        refused(await http.delete(f"{path}?step=0"), 400, "logNotStored")
        assert (await owners.world.log.history(address))[-1] == deletion


async def test_who_may_do_what_with_runs(owners: Owners) -> None:
    ann, of_ann = await owners.user("ann")
    bob, of_bob = await owners.user("bob")
    _, of_eve = await owners.user("eve")
    await owners.organization("acme", ann, bob)
    public = await owners.project("org/acme", "/x", name="public")
    private = await owners.project("org/acme", "/x", name="private", visibility="private")
    shared = await owners.project("org/acme", "/x", name="shared", members_act=True)
    own = await owners.project("user/ann", "/x", name="own", visibility="private")
    senders = dict(zip(RELATIONS, ("", of_eve, of_bob, of_ann, "", TOKEN), strict=True))
    del senders["admin"]

    async def statuses(method: str, path: str, **request: Any) -> list[int]:
        found = []
        for token in senders.values():
            async with owners.http(token) as http:
                found.append((await http.request(method, path, **request)).status_code)
        return found

    for project in (public, private, shared, own):
        await made(owners, f"/project/{project}", 1)
    await made(owners, f"/user/{ann.id}", 1)
    # nobody, a stranger, a member, an owner, the admin token
    assert await statuses("GET", f"/projects/{public}/runs") == [401, 200, 200, 200, 200]
    assert await statuses("GET", f"/projects/{public}/runs/1") == [200, 200, 200, 200, 200]
    assert await statuses("GET", f"/projects/{private}/runs") == [401, 404, 200, 200, 200]
    assert await statuses("GET", f"/projects/{private}/runs/1") == [403, 404, 200, 200, 200]
    assert await statuses("GET", f"/projects/{own}/runs/1") == [403, 403, 403, 200, 200]
    assert await statuses("GET", "/users/ann/runs/1") == [403, 403, 403, 200, 200]
    assert await statuses("GET", "/users/ann/runs") == [401, 403, 403, 200, 200]
    stop = {"json": {"action_type": "stop"}}  # 400: it may, and the run does not run
    assert await statuses("PUT", f"/projects/{private}/runs/1/actions", **stop) == [401, 403, 403, 400, 400]
    assert await statuses("PUT", f"/projects/{shared}/runs/1/actions", **stop) == [401, 403, 400, 400, 400]
    assert await statuses("PUT", "/users/ann/runs/1/actions", **stop) == [401, 403, 403, 400, 400]
    approve = {"json": {"action_type": "approve"}}
    path = f"/projects/{private}/runs/1/tasks/gone"
    assert await statuses("PUT", f"{path}/actions", **approve) == [401, 403, 403, 404, 403]
    assert await statuses("DELETE", f"{path}/logs?setup") == [401, 403, 403, 404, 404]
    assert await statuses("GET", f"{path}/logs?setup") == [403, 404, 404, 404, 404]
    assert await statuses("GET", f"/badges/{private}") == [200] * 5


async def test_badges(owners: Owners) -> None:
    await owners.user("ann")
    project = await owners.project("user/ann", "/x", name="web")
    await made(owners, f"/project/{project}", 1, "branch/a%2Fb")
    async with owners.http("") as http:
        for query, text in (("", "in progress"), ("?branch=a%2Fb", "in progress"), ("?branch=main", "unknown")):
            shown = await http.get(f"/badges/user%2Fann%2Fweb{query}")
            assert f"run: {text}" in shown.text
            assert (shown.headers["content-type"], shown.headers["cache-control"]) == ("image/svg+xml", "no-cache")
        assert (await http.get("/badges/gone")).status_code == 404


@pytest.mark.parametrize(
    ("phase", "result", "badge"),
    [
        (RunPhase.SETUP_ERROR, RunResult.UNKNOWN, "error"),
        (RunPhase.QUEUED, RunResult.UNKNOWN, "inprogress"),
        (RunPhase.RUNNING, RunResult.UNKNOWN, "inprogress"),
        (RunPhase.CANCELLED, RunResult.UNKNOWN, "failed"),
        (RunPhase.RUNNING, RunResult.FAILED, "failed"),
        (RunPhase.FINISHED, RunResult.STOPPED, "failed"),
        (RunPhase.FINISHED, RunResult.SUCCESS, "success"),
    ],
)
def test_the_badge_of_a_run(phase: RunPhase, result: RunResult, badge: str) -> None:
    run = RunSummary(
        id="", sequence=1, name="", counter=1, group="", annotations={}, phase=phase, result=result, stop=False,
        setup_errors=(), tasks_waiting_approval=(), enqueue_time=NOW, start_time=None, end_time=None, archived=False,
    )  # fmt: skip
    assert badge_of(run) == badge
    assert svg(badge_of(run)).startswith("<svg ")
