"""Reads of the projection: filters, pages, groups, freshness."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from runstream import api
from runstream.client import NewRun
from runstream.commits import Position
from runstream.database.run_lists import RunPage, RunQuery
from runstream.database.runs import ReadRun
from runstream.run_states import RunPhase, RunResult
from tests.gateway.world import World, run_body

DEEP = urlsafe_b64encode(b'{"deep": %b%b}' % (b"[" * 2000, b"]" * 2000)).decode()
SUMMARY = api.RunSummary(
    id="0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11",
    sequence=512,
    counter=7,
    group="/project/web/branch/main",
    name="main",
    creation_time=datetime(2025, 1, 1, tzinfo=UTC),
    run_config_id="c" * 64,
    annotations={},
    setup_errors=(),
    phase=RunPhase.FINISHED,
    result=RunResult.SUCCESS,
    stop=False,
    timedout=False,
    reason="",
    priority=0,
    paused_at=None,
    enqueue_time=datetime(2025, 1, 1, tzinfo=UTC),
    start_time=None,
    end_time=None,
    archived=True,
    tasks_waiting_approval=(),
)


async def test_a_page_of_runs() -> None:
    world = World.make()
    world.reads.page = RunPage((SUMMARY,), 512)
    async with world.http() as http:
        path = "/runs?group=/a/b&group=/c/d&phase=queued&phase=running&result=failed&lastrun&asc&start=9&limit=99"
        body = (await http.get(path)).json()
    (query,) = world.reads.queries
    assert (query.groups, query.phases, query.results) == (
        ("/a/b", "/c/d"),
        (RunPhase.QUEUED, RunPhase.RUNNING),
        (RunResult.FAILED,),
    )
    assert (query.last_run, query.ascending, query.start, query.limit) == (True, True, 9, 40)
    assert body["next_start"] == 512
    assert body["runs"][0]["enqueue_time"] == "2025-01-01T00:00:00Z"


async def test_a_page_with_text_and_counts() -> None:
    world = World.make()
    counts = api.RunCounts({"queued": api.Count(3, more=False)}, {"unknown": api.Count(1000, more=True)})
    world.reads.page = RunPage((SUMMARY,), 512, counts)
    async with world.http() as http:
        body = (await http.get("/runs?text=%20Fix%20%25&counts&limit=7")).json()
        await http.get("/runs", params={"cursor": body["cursor"], "counts": "1"})
        refused = await http.get("/runs?text=a%00b")
    first, second = world.reads.queries
    assert (first.text, second.text, second.start) == ("Fix %", "Fix %", 512)
    assert world.reads.counted == [True, True]
    assert body["counts"]["results"]["unknown"] == {"count": 1000, "more": True}
    assert (refused.status_code, refused.json()[0]["code"]) == (400, "nulCharacter")
    async with world.client() as client:
        page = await client.runs.page(text="Fix %", counts=True)
    assert page.counts == counts


async def test_defaults_of_a_page() -> None:
    world = World.make()
    async with world.http() as http:
        await http.get("/runs?asc=false")
    (query,) = world.reads.queries
    assert (query.limit, query.ascending, query.last_run, query.start) == (25, False, False, 0)


async def test_the_runs_of_a_group_whose_name_is_escaped() -> None:
    world = World.make()
    world.reads.page = RunPage((SUMMARY,), None)
    async with world.http() as http:
        answer = await http.get("/runs/group/%2Fproject%2Fweb%2Fbranch%2Ffeature%252Fx?limit=0")
    (query,) = world.reads.queries
    assert list(query.groups) == ["/project/web/branch/feature%2Fx"]
    assert (query.limit, answer.headers["X-Agola-HasMore"]) == (40, "false")


async def test_a_cursor_asks_for_the_next_page_of_the_same_list() -> None:
    world = World.make()
    world.reads.page = RunPage((SUMMARY,), 512)
    async with world.http() as http:
        first = await http.get("/runs?group=/a/b&phase=queued&result=failed&lastrun&asc&start=9")
        cursor = first.headers["X-Agola-Cursor"]
        assert first.json()["cursor"] == cursor
        await http.get("/runs", params={"cursor": cursor, "limit": 7})
        world.reads.page = RunPage((SUMMARY,), None)
        last = await http.get("/runs", params={"cursor": cursor})
    before, after, _ = world.reads.queries
    assert after == replace(before, start=512, limit=7)
    assert (last.headers["X-Agola-Cursor"], last.headers["X-Agola-HasMore"], last.json()["cursor"]) == ("", "false", "")


async def test_a_page_of_a_group_begins_behind_a_number() -> None:
    """Whether there is a run of this number in the group or not."""
    world = World.make()
    world.reads.page = RunPage((SUMMARY,), 512)
    path = "/runs/group/%2Fproject%2Fweb"
    async with world.http() as http:
        first = await http.get(f"{path}?start=9&sortdirection=asc&phase=finished")
        assert (first.json()["next_start"], first.headers["X-Agola-HasMore"]) == (7, "true")
        await http.get(path, params={"cursor": first.json()["cursor"]})
    before, after = world.reads.queries
    assert (before.start_counter, before.start, before.ascending) == (9, 0, True)
    assert after == replace(before, start_counter=0, start=512)


@pytest.mark.parametrize(
    "path",
    [
        "/runs?cursor=CURSOR&phase=queued",
        "/runs?cursor=CURSOR&group=/a/b",
        "/runs?cursor=CURSOR&asc",
        "/runs?cursor=nonsense",
        "/runs?cursor=e30x",
        f"/runs?cursor={DEEP}",
        "/runs/group/%2Fother%2Fgroup?cursor=CURSOR",
        "/runs/group/%2Fa%2Fb?cursor=CURSOR&sortdirection=asc",
        "/runs/group/%2Fa%2Fb?cursor=CURSOR&start=3",
    ],
)
async def test_a_cursor_is_of_one_list_and_says_all_of_it(path: str) -> None:
    world = World.make()
    world.reads.page = RunPage((SUMMARY,), 512)
    async with world.http() as http:
        cursor = (await http.get("/runs?group=/a/b")).json()["cursor"]
        answer = await http.get(path.replace("CURSOR", cursor))
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (400, "invalidCursor")
    assert error["hint"]


async def test_reads_wait_for_the_positions_that_are_named() -> None:
    world = World.make()
    async with world.http() as http:
        created = await http.post("/runs", json=run_body())
        run, position = created.json()["run"]["id"], created.headers["Runstream-Position"]
        await http.get(f"/runs/{run}?at_least={position},1/0/7")
        await http.get(f"/runs/{run}", headers={"Runstream-Position": position})
    here = Position(*map(int, position.split("/")))
    assert [tuple(asked) for asked in world.reads.asked] == [(here, Position(1, 0, 7)), (here,)]


async def test_the_client_reads_what_it_wrote() -> None:
    world = World.make()
    async with world.client() as client:
        tasks = run_body()["run_config_tasks"]
        run = await client.runs.create(NewRun("/project/web/branch/main", "main", tasks))
        read = await client.runs.get(run.id)
    assert msgspec.structs.replace(read, counter=0, sequence=0) == run  # its number was given meanwhile
    assert len(world.reads.asked[-1]) == 1


async def test_the_client_goes_through_all_pages() -> None:
    world = World.make()
    pages = {0: RunPage((SUMMARY,), 512), 512: RunPage((SUMMARY, SUMMARY), None)}

    async def runs(query: object, _: object, *, counts: bool, tasks: bool) -> RunPage:
        return pages[query.start]  # type: ignore[attr-defined]

    world.reads.runs = runs  # type: ignore[method-assign,assignment]
    async with world.client() as client:
        assert [run.counter async for run in client.runs.list(phases=["finished"])] == [7, 7, 7]
        page = await client.runs.page(phases=["finished"])
        assert (await client.runs.page(cursor=page.cursor)).cursor == ""


def test_a_read_run_is_a_run_and_its_config() -> None:
    assert set(ReadRun.__dataclass_fields__) == {"record", "config"}


async def test_a_group_shows_its_queue_and_the_times_of_its_last_runs() -> None:
    world, now = World.make(), SUMMARY.enqueue_time
    unfinished = [
        msgspec.structs.replace(SUMMARY, id=str(number), phase=RunPhase.QUEUED, group=group)
        for number, group in enumerate((SUMMARY.group, f"{SUMMARY.group}/below", SUMMARY.group))
    ]
    times = {"start_time": now + timedelta(seconds=2), "end_time": now + timedelta(seconds=5)}
    ended = msgspec.structs.replace(SUMMARY, **times)
    pages = {0: RunPage(tuple(unfinished), 9), 9: RunPage((), None)}

    async def runs(query: RunQuery, _: object, *, counts: bool = False) -> RunPage:
        return RunPage((ended, SUMMARY), None) if query.phases == (RunPhase.FINISHED,) else pages[query.start]

    world.reads.runs = runs  # type: ignore[method-assign,assignment]
    async with world.client() as client:
        found = await client.runs.group(SUMMARY.group)
    assert [(one.run.id, one.waits_for, one.ahead) for one in found.queue] == [("0", "", 0), ("2", "0", 1)]
    assert [(one.waited, one.took) for one in found.last] == [(2.0, 3.0), (None, None)]
    assert (found.more, found.median_waited, found.median_took) == (False, 2.0, 3.0)
