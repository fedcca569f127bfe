"""Open streams end once their sender would be refused, whatever takes the access away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runstream.events.run import RunNumbered
from runstream.gateway import open_access
from runstream.ids import run_task_id
from runstream.subjects import Address, partition_of
from tests.gateway.folding import FoldedLog
from tests.gateway.owners import Owners
from tests.gateway.world import TOKEN, run_body

EVENTS = {"Accept": "text/event-stream"}
FOR_ADMINISTRATORS = "/events"


@pytest.fixture
async def owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Owners]:
    monkeypatch.setattr(open_access, "PACE_SECONDS", 0.01)
    async with Owners.serving(tmp_path, reads=FoldedLog) as owners:
        owners.world.step_logs.more = asyncio.Event()  # a followed log is silent
        yield owners


async def streams_of(owners: Owners, project: str) -> list[str]:
    """Make a run of a project; return the path of each stream about it, and of those that are about all runs."""
    root = f"/project/{project}"
    async with owners.http(TOKEN) as http:
        made = await http.post("/runs", json=run_body(group=f"{root}/branch/main"))
    run = made.json()["run"]["id"]
    await owners.world.append(Address(partition_of(root, 4), "run", run), RunNumbered(1, 10))
    task = run_task_id(run, "t1") if not made.json()["run"]["tasks"] else next(iter(made.json()["run"]["tasks"]))
    log = f"runid={run}&taskid={task}&step=0&follow"
    return [
        f"/events?run={run}",
        f"/runs/{run}/history",
        f"/logs?{log}",
        f"/logs?{log}&timestamps",
        f"/projects/{project}/runs/1/tasks/{task}/logs?step=0&follow",
        "/runs/events",
        FOR_ADMINISTRATORS,
    ]


async def all_end(owners: Owners, token: str, paths: list[str], change: Callable[[], Awaitable[Any]]) -> None:
    """Open each stream, change something, and wait until each ends: logs are cut off, events are whole."""

    async def read(path: str, answer: httpx2.Response) -> None:
        cut = pytest.raises(httpx2.RemoteProtocolError, match="incomplete") if "logs?" in path else nullcontext()
        with cut:
            async for _ in answer.aiter_bytes():
                pass

    async with owners.http(token) as http, AsyncExitStack() as stack:
        answers = []
        for path in paths:
            answer = await stack.enter_async_context(http.stream("GET", path, headers=EVENTS, timeout=10))
            assert answer.status_code == 200, (path, await answer.aread())
            answers.append(answer)
        await change()
        async with asyncio.timeout(10):
            await asyncio.gather(*(read(path, answer) for path, answer in zip(paths, answers, strict=True)))


async def delete(owners: Owners, path: str) -> None:
    async with owners.http(TOKEN) as http:
        answer = await http.delete(path)
        assert answer.is_success, answer.text


async def put(owners: Owners, path: str, body: dict[str, Any]) -> None:
    async with owners.http(TOKEN) as http:
        answer = await http.put(path, json=body)
        assert answer.is_success, answer.text


async def test_streams_end_when_their_token_is_revoked(owners: Owners) -> None:
    ann, token = await owners.user("ann")
    project = await owners.project("user/ann", "/x")
    paths = [path for path in await streams_of(owners, project) if path != FOR_ADMINISTRATORS]
    (name,) = [one.name for one in owners.store.state.users[ann.id].tokens.values()]
    await all_end(owners, token, paths, lambda: delete(owners, f"/users/ann/tokens/{name.replace(' ', '%20')}"))


async def test_streams_end_when_their_user_is_no_member_any_more(owners: Owners) -> None:
    ann, _ = await owners.user("ann")
    bob, token = await owners.user("bob")
    await owners.organization("acme", ann, bob, visibility="private")
    project = await owners.project("org/acme", "/x", visibility="private")
    paths = [path for path in await streams_of(owners, project) if path not in ("/runs/events", FOR_ADMINISTRATORS)]
    await all_end(owners, token, paths, lambda: delete(owners, "/orgs/acme/members/bob"))


async def test_streams_without_a_login_end_when_a_project_becomes_private(owners: Owners) -> None:
    await owners.user("ann")
    project = await owners.project("user/ann", "/x")
    paths = [path for path in await streams_of(owners, project) if "events" not in path]
    await all_end(owners, "", paths, lambda: put(owners, f"/projects/{project}", {"visibility": "private"}))


async def test_streams_end_when_their_user_administers_no_more(owners: Owners) -> None:
    await owners.user("ann")
    _, token = await owners.user("root")
    await put(owners, "/users/root", {"admin": True})
    paths = await streams_of(owners, await owners.project("user/ann", "/x"))
    await all_end(owners, token, paths, lambda: put(owners, "/users/root", {"admin": False}))


async def test_other_changes_leave_streams_open(owners: Owners) -> None:
    _, token = await owners.user("ann")
    paths = await streams_of(owners, await owners.project("user/ann", "/x"))
    more = owners.world.step_logs.more
    assert more is not None
    owners.world.step_logs.chunks = [b"the end"]
    log = next(path for path in paths if path.startswith("/logs"))
    async with owners.http(token) as http, http.stream("GET", log, timeout=10) as answer:
        for name in ("bob", "eve"):
            await owners.user(name)
        more.set()
        assert b"".join([chunk async for chunk in answer.aiter_bytes()]) == b"the end"
