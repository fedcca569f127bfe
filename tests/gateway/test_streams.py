"""Event streams and logs over real sockets: headers first, every message once, gone when the client is gone."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from runstream.client import Client, ClientError, NewRun
from runstream.client.session import ATTEMPTS
from runstream.commits import LogPosition
from runstream.errors import InternalError, NotExistError
from runstream.events.run import RunFinished, RunNumbered, RunResultSet, RunStarted, RunTaskRetried
from runstream.gateway import middleware
from runstream.gateway.events import RunPhases
from runstream.gateway.middleware import MaintenanceGate
from runstream.ids import executor_task_id, run_task_id
from runstream.log.tail import scope_of_run, tail
from runstream.projections.as_of import RunsAsOf
from runstream.run_states import RunResult
from runstream.subjects import Address, partition_of
from tests.gateway.world import BEGUN, TOKEN, World, run_body

P = partition_of("/project/web", 4)


@asynccontextmanager
async def _served(world: World) -> AsyncIterator[Client]:
    async with world.served() as url, Client(url, token=TOKEN) as client:
        yield client


async def _create(client: Client) -> str:
    tasks = run_body()["run_config_tasks"]
    return (await client.runs.create(NewRun("/project/web/branch/main", "main", tasks))).id


async def test_the_log_is_tailed_from_its_start_and_goes_on() -> None:
    world = World.make()
    async with _served(world) as client:
        run = await _create(client)
        tail = client.events.tail("start")
        assert [(await anext(tail)).aggregate.split("/")[0] for _ in range(2)] == ["runconfig", "run"]
        await world.append(Address(P, "run", run), RunStarted())
        commit = await anext(tail)
        assert (commit.aggregate, commit.version, commit.actor) == (f"run/{run}", 2, "scheduler")
        assert [event.type for event in commit.events] == ["RunStarted"]
        assert commit.position == f"1/{P}/3"
        resumed = client.events.tail(commit.place)
        await world.append(Address(P, "run", run), RunFinished())
        assert (await anext(resumed)).events == (await anext(tail)).events
        await tail.aclose()
        await resumed.aclose()


@pytest.mark.parametrize("filters", [100, 0])
async def test_a_tail_of_one_run_has_only_that_run(filters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.log.tail._FILTERS", filters)
    world = World.make()
    async with _served(world) as client:
        first, second = await _create(client), await _create(client)
        tail = client.events.tail(run=second)
        await world.append(Address(P, "run", first), RunStarted())
        await world.append(Address(P, "run", second), RunStarted())
        commits = [await anext(tail) for _ in range(2)]
        assert {commit.aggregate for commit in commits} == {f"run/{second}"}
        await tail.aclose()


async def test_the_headers_of_a_stream_come_before_its_first_event() -> None:
    world = World.make()
    headers = {"Authorization": f"token {TOKEN}"}
    async with world.served() as url, httpx2.AsyncClient(headers=headers) as http:
        async with http.stream("GET", f"{url}/api/v1alpha/events") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
        async with http.stream("GET", f"{url}/api/v1alpha/runs/events") as answer:
            assert answer.status_code == 200


async def test_a_message_that_cannot_be_read_does_not_end_the_stream() -> None:
    world = World.make()
    world.log.put(P, world.log.subjects.of(Address(P, "run", "x")), b"not json")
    headers = {"Authorization": f"token {TOKEN}"}
    async with (
        world.served() as url,
        httpx2.AsyncClient(headers=headers) as http,
        http.stream("GET", f"{url}/api/v1alpha/events?from=start") as answer,
    ):
        seen = [line async for line in _until(answer.aiter_lines(), "data:")]
    assert "event: unreadable" in seen
    assert "unreadableCommit" in seen[-1]


async def _until(lines: AsyncIterator[str], start: str) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line.startswith(start):
            return


async def test_phases_of_runs_are_reported() -> None:
    world = World.make()
    headers = {"Authorization": f"token {TOKEN}"}
    async with world.served() as url, Client(url, token=TOKEN) as client, httpx2.AsyncClient(headers=headers) as http:
        run = Address(P, "run", await _create(client))
        await world.append(run, RunStarted())
        await world.append(run, RunResultSet(RunResult.FAILED))
        path = f"{url}/api/v1alpha/runs/events?afterSequence=1/{P}/3"
        async with http.stream("GET", path) as answer:
            await world.append(run, RunFinished())
            lines = answer.aiter_lines()
            first = [line async for line in _until(lines, "data:")][-1]
            second = [line async for line in _until(lines, "data:")][-1]
    assert '"Phase":"running","Result":"failed"' in first
    assert '"Phase":"finished","Result":"failed"' in second


async def test_phases_of_runs_that_the_reader_may_not_see_are_left_out() -> None:
    world = World.make()
    async with _served(world) as client:
        tasks = run_body()["run_config_tasks"]
        for group in ("/project/web/branch/main", "/project/other/branch/main", "/project/web/branch/dev"):
            await client.runs.create(NewRun(group, group.rsplit("/", 1)[-1], tasks))
    phases = RunPhases(world.log, RunsAsOf(world.log), lambda group: group.startswith("/project/web/"))
    told: list[str] = []
    async with tail(world.log, await scope_of_run(world.log, ""), LogPosition(1, (0,) * 4)) as take:
        for _ in range(2):
            for seen in await take():
                text = (await phases.format_message(seen)).decode()
                told += [json.loads(line[6:])["Data"]["name"] for line in text.splitlines() if line.startswith("data:")]
            if len(told) >= 2:
                break
    assert sorted(told) == ["dev", "main"]


async def test_an_event_of_a_phase_carries_the_run_as_it_was_then() -> None:
    world = World.make()
    headers = {"Authorization": f"token {TOKEN}"}
    async with world.served() as url, Client(url, token=TOKEN) as client, httpx2.AsyncClient(headers=headers) as http:
        created = await _create(client)
        run = Address(P, "run", created)
        await world.append(run, RunNumbered(7, 1), RunStarted())
        await world.append(run, RunResultSet(RunResult.FAILED), RunFinished())
        told: list[dict[str, Any]] = []
        async with http.stream("GET", f"{url}/api/v1alpha/runs/events?afterSequence=1/{P}/1") as answer:
            lines = answer.aiter_lines()
            while len(told) < 4:
                (line,) = [line async for line in _until(lines, "data:") if line.startswith("data:")]
                told.append(json.loads(line.removeprefix("data: ")))
    assert len({one["id"] for one in told}) == 4
    assert {one["DataVersion"] for one in told} == {1}
    assert [(one["Data"]["phase"], one["Data"]["result"], one["Data"]["counter"]) for one in told] == [
        ("queued", "unknown", 7),
        ("running", "unknown", 7),
        ("running", "failed", 7),
        ("finished", "failed", 7),
    ]
    assert [(one["Phase"], one["Result"]) for one in told] == [
        (one["Data"]["phase"], one["Data"]["result"]) for one in told
    ]
    data = told[1]["Data"]
    assert data.keys() == {
        *("id", "name", "counter", "phase", "result", "setup_errors", "tasks"),
        *("enqueue_time", "start_time", "end_time", "annotations"),
    }
    assert (data["id"], data["end_time"]) == (created, None)
    (task,) = data["tasks"].values()
    assert task.keys() == {
        *("id", "name", "level", "skip", "depends", "status", "timedout", "waiting_approval", "approved"),
        *("setup_step", "steps", "start_time", "end_time"),
    }
    assert task["steps"] == [{"phase": "notstarted", "exit_status": None, "start_time": None, "end_time": None}]


async def test_resuming_after_a_sequence_misses_nothing_of_any_partition() -> None:
    """Headers come at once, before there is anything to tell."""
    world = World.make()
    groups = ["/project/web/a", "/project/api/a", "/project/x/a", "/user/y/a", "/user/z/a"]
    assert len({partition_of(group[: group.rindex("/")], 4) for group in groups}) > 1
    headers = {"Authorization": f"token {TOKEN}"}
    path = "/api/v1alpha/runs/events"

    async def told(lines: AsyncIterator[str]) -> dict[str, str]:
        (line,) = [line async for line in _until(lines, "data:") if line.startswith("data:")]
        event: dict[str, str] = json.loads(line.removeprefix("data: "))
        return event

    async with world.served() as url, world.http() as ours, httpx2.AsyncClient(headers=headers) as http:
        async with http.stream("GET", f"{url}{path}?afterSequence=0") as answer:
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            lines = answer.aiter_lines()
            assert await anext(lines) == ": from 1:0,0,0,0"
            runs = [(await ours.post("/runs", json=run_body(group=group))).json()["run"]["id"] for group in groups]
            first = await told(lines)
        seen = [first["RunID"]]
        async with http.stream("GET", f"{url}{path}", params={"afterSequence": first["Sequence"]}) as answer:
            lines = answer.aiter_lines()
            seen += [(await told(lines))["RunID"] for _ in runs[1:]]
    assert sorted(seen) == sorted(runs)


async def test_a_log_that_has_nothing_yet_answers_at_once() -> None:
    world = World.make()
    world.step_logs.more = asyncio.Event()
    world.step_logs.chunks = [b"hello\n", b"bye\n"]
    headers = {"Authorization": f"token {TOKEN}"}
    async with world.served() as url, Client(url, token=TOKEN) as client, httpx2.AsyncClient(headers=headers) as http:
        run = await _create(client)
        task = run_task_id(run, "build")
        path = f"{url}/api/v1alpha/logs?runid={run}&taskid={task}&step=0&follow"
        async with http.stream("GET", path) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/plain;charset=UTF-8"
            assert answer.headers["cache-control"] == "no-cache"
            world.step_logs.more.set()
            assert b"".join([chunk async for chunk in answer.aiter_bytes()]) == b"hello\nbye\n"
    ((key, follow),) = world.step_logs.opened
    assert (key.run_id, key.stored_id, key.step, key.partition, follow) == (run, task, 0, P, True)
    assert key.executor_task_id == executor_task_id(run, task)


async def test_each_attempt_has_a_log_of_its_own() -> None:
    world = World.make()
    async with world.client() as client:
        run = await _create(client)
        task = run_task_id(run, "build")
        await world.append(Address(P, "run", run), RunStarted(), RunTaskRetried("build", 2, "lost", BEGUN))
        for attempt in (None, 1, 2):
            await client.logs.get(run, task, 0, attempt=attempt)
        with pytest.raises(ClientError, match="no attempt 3: its last is 2") as caught:
            await client.logs.get(run, task, 0, attempt=3)
    assert caught.value.code == "runTaskAttemptDoesNotExist"
    keys = [key for key, _ in world.step_logs.opened]
    assert [key.stored_id for key in keys] == [f"{task}-2", task, f"{task}-2"]
    assert [key.executor_task_id for key in keys] == [executor_task_id(run, task, n) for n in (2, 1, 2)]


async def test_a_client_that_leaves_frees_what_it_followed() -> None:
    world = World.make()
    world.step_logs.more = asyncio.Event()
    headers = {"Authorization": f"token {TOKEN}"}
    async with world.served() as url, Client(url, token=TOKEN) as client, httpx2.AsyncClient(headers=headers) as http:
        run = await _create(client)
        path = f"{url}/api/v1alpha/logs?runid={run}&taskid={run_task_id(run, 'build')}&setup&follow"
        async with http.stream("GET", path):
            pass
        await world.step_logs.closed.wait()


async def test_a_client_that_leaves_is_no_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    told: asyncio.Queue[tuple[str, object]] = asyncio.Queue()

    class Told:
        def __getattr__(self, level: str) -> Callable[..., None]:
            return lambda _sentence, **fields: told.put_nowait((level, fields["action"]))

    monkeypatch.setattr(middleware, "log", Told())
    async with World.make().served() as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        head = f"POST /api/v1alpha/runs HTTP/1.1\r\nAuthorization: token {TOKEN}\r\nContent-Length: 100\r\n\r\n{{"
        writer.write(head.encode())
        await writer.drain()
        writer.close()
        assert await told.get() == ("info", "client_left")


async def _followed_log(url: str) -> str:
    async with Client(url, token=TOKEN) as client:
        run = await _create(client)
    return f"{url}/api/v1alpha/logs?runid={run}&taskid={run_task_id(run, 'build')}&setup&follow"


@pytest.mark.parametrize("more", ["", "&timestamps"])
async def test_a_log_that_the_gateway_cuts_off_does_not_look_complete(more: str) -> None:
    world = World.make()
    world.step_logs.more = asyncio.Event()
    headers = {"Authorization": f"token {TOKEN}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        world.served() as url,
        http.stream("GET", await _followed_log(url) + more) as answer,
    ):
        world.context.stopping.set()
        with pytest.raises(httpx2.RemoteProtocolError, match="incomplete"):
            await answer.aread()


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("path", ["events", "runs/events", "runs/{run}/history"])
async def test_events_that_the_gateway_ends_are_a_whole_response(path: str, parked: bool) -> None:
    """A browser takes a cut response for an error of the network; a client resumes after the last event."""
    world = World.make()
    gate = MaintenanceGate(lambda: "")
    gate.open()
    headers = {"Authorization": f"token {TOKEN}", "Accept": "text/event-stream"}
    async with httpx2.AsyncClient(headers=headers) as http, world.served(gate) as url:
        async with Client(url, token=TOKEN) as client:
            path = path.format(run=await _create(client))
        async with http.stream("GET", f"{url}/api/v1alpha/{path}") as answer:
            assert answer.status_code == 200
            if parked:
                gate.close()
            else:
                world.context.stopping.set()
            await answer.aread()
        await gate.empty()


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


async def test_an_answer_that_the_gateway_cuts_off_is_no_error_of_the_server() -> None:
    """The server records it before it closes the connection, and the client sees its end after that."""
    world = World.make()
    world.step_logs.more = asyncio.Event()
    records, server = Records(), logging.getLogger("uvicorn.error")
    async with httpx2.AsyncClient(headers={"Authorization": f"token {TOKEN}"}) as http, world.served() as url:
        path = await _followed_log(url)
        server.addHandler(records)
        try:
            server.error("what this handler gets")
            async with http.stream("GET", path) as answer:
                world.context.stopping.set()
                with pytest.raises(httpx2.RemoteProtocolError, match="incomplete"):
                    await answer.aread()
        finally:
            server.removeHandler(records)
    assert records.messages == ["what this handler gets"]


async def test_a_log_that_is_parked_does_not_look_complete() -> None:
    world = World.make()
    world.step_logs.more = asyncio.Event()
    gate = MaintenanceGate(lambda: "")
    gate.open()
    headers = {"Authorization": f"token {TOKEN}"}
    async with httpx2.AsyncClient(headers=headers) as http, world.served(gate) as url:
        async with http.stream("GET", await _followed_log(url)) as answer:
            gate.close()
            with pytest.raises(httpx2.RemoteProtocolError, match="incomplete"):
                await answer.aread()
        await gate.empty()


@pytest.mark.parametrize(
    ("task", "step", "code"),
    [
        ("0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11", 0, "runTaskDoesNotExist"),
        ("build", 1, "runTaskStepDoesNotExist"),
        ("build", -1, "runTaskServiceDoesNotExist"),
        ("build", 0, "logDoesNotExist"),
    ],
)
async def test_a_log_that_is_not_there_is_404(task: str, step: int, code: str) -> None:
    world = World.make()
    world.step_logs.error = NotExistError("log doesn't exist", code="logDoesNotExist")
    async with world.client() as client:
        run = await _create(client)
        task_id = run_task_id(run, task) if task == "build" else task
        with pytest.raises(ClientError, match="log doesn't exist") as caught:
            await client.logs.get(run, task_id, step)
    assert (caught.value.status, caught.value.kind, caught.value.code) == (404, "not-exist", code)


async def test_the_log_of_no_run_is_404() -> None:
    world = World.make()
    nowhere = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
    async with world.client() as client:
        with pytest.raises(ClientError, match=r"log doesn't exist: run .* does not exist"):
            await client.logs.get(nowhere, nowhere, None)


async def test_a_log_that_breaks_off_is_gone_on_with_at_the_next_byte() -> None:
    world = World.make()
    world.step_logs.chunks, world.step_logs.breaks = [b"hel", b"lo\n"], InternalError("the log cannot be read on")
    async with _served(world) as client:
        run = await _create(client)
        chunks = client.logs.follow(run, run_task_id(run, "build"), 0)
        assert b"".join([await anext(chunks) for _ in range(2)]) == b"hello\n"
        world.step_logs.chunks.append(b"again\n")
        assert await anext(chunks) == b"again\n"
        world.step_logs.breaks = None
        assert [chunk async for chunk in chunks] == []


async def test_a_tail_of_a_log_goes_on_where_it_broke_off() -> None:
    world = World.make()
    world.step_logs.chunks = [b"first\nsecond\n", b"third\n"]
    world.step_logs.breaks = InternalError("the log cannot be read on")
    async with _served(world) as client:
        run = await _create(client)
        chunks = client.logs.follow(run, run_task_id(run, "build"), 0, tail=2)
        assert b"".join([await anext(chunks) for _ in range(2)]) == b"second\nthird\n"
        world.step_logs.chunks.append(b"fourth\n")
        world.step_logs.breaks = None
        assert [chunk async for chunk in chunks] == [b"fourth\n"]


@pytest.mark.parametrize("cut", [1, 6, 7, 9, 13])
async def test_a_log_with_timestamps_that_breaks_off_anywhere_is_gone_on_with(cut: int) -> None:
    world = World.make()
    whole = b"first\n\nthird\nlast"
    world.step_logs.chunks, world.step_logs.breaks = [whole[:cut]], InternalError("the log cannot be read on")
    async with _served(world) as client:
        run = await _create(client)
        chunks = client.logs.follow(run, run_task_id(run, "build"), 0, timestamps=True)
        text = await anext(chunks)
        world.step_logs.chunks.append(whole[cut:])
        world.step_logs.breaks = None
        text += b"".join([chunk async for chunk in chunks])
    time = "1970-01-01T00:00:{:02}.000Z {}"
    assert text.decode() == "\n".join(
        time.format(*line) for line in [(0, "first"), (6, ""), (7, "third"), (13, "last")]
    )


async def test_lines_of_a_log_by_their_numbers() -> None:
    world = World.make()
    world.step_logs.chunks = [b"first\nsec", b"ond\nth\xffird\n", b"last"]
    async with _served(world) as client:
        run = await _create(client)
        task = run_task_id(run, "build")
        page = await client.logs.lines(run, task, 0, 1, 2)
        assert [(line.number, line.offset, line.text, line.cut) for line in page.lines] == [
            (1, 6, "second", False),
            (2, 13, "th\ufffdird", False),
        ]
        assert page.lines[1].time == datetime(1970, 1, 1, 0, 0, 13, tzinfo=UTC)
        assert page.next == 3
        page = await client.logs.lines(run, task, None, -1)
        assert ([line.number for line in page.lines], page.next) == ([3], None)
        for first, count, number in ((-(1 << 53), 10_000, 4), (1 << 53, 1, 0), (4, 1, 0)):
            page = await client.logs.lines(run, task, 0, first, count)
            assert (len(page.lines), page.next) == (number, None)
        for first, count in ((0, 0), (0, 10_001), (0, 1 << 80), (1 << 60, 1), (-(1 << 80), 1)):
            with pytest.raises(ClientError) as raised:
                await client.logs.lines(run, task, 0, first, count)
            assert raised.value.status == 400
        world.step_logs.error = NotExistError("log doesn't exist", code="logDoesNotExist")
        with pytest.raises(ClientError, match="log doesn't exist"):
            await client.logs.lines(run, task, 0)


async def test_a_line_without_a_known_time_has_a_dash() -> None:
    world = World.make()
    world.step_logs.chunks, world.step_logs.has_times = [b"first\nsec", b"ond\n"], False
    async with _served(world) as client:
        run = await _create(client)
        assert await client.logs.get(run, run_task_id(run, "build"), 0, timestamps=True) == b"- first\n- second\n"
        text = await client.logs.get(run, run_task_id(run, "build"), 0, tail=1, timestamps=True)
        assert text == b"- second\n"


async def test_a_log_that_breaks_off_for_good_is_an_error_of_the_client() -> None:
    world = World.make()
    world.step_logs.chunks, world.step_logs.breaks = [b"hello\n"], InternalError("the log cannot be read on")
    async with world.served() as url, Client(url, token=TOKEN, wait_seconds=0) as client:
        run = await _create(client)
        chunks = client.logs.follow(run, run_task_id(run, "build"), 0)
        assert await anext(chunks) == b"hello\n"
        with pytest.raises(ClientError, match="broke off"):
            await anext(chunks)
    assert len(world.step_logs.opened) == ATTEMPTS


async def test_a_tail_that_cannot_continue_ends_with_an_error_in_the_stream() -> None:
    world = World.make()

    def broken(*_: object, **__: object) -> object:
        raise InternalError("NATS is gone", code="natsGone", hint="start it")

    async with _served(world) as client:
        world.log.read = broken  # type: ignore[method-assign,assignment]
        with pytest.raises(ClientError, match="NATS is gone") as caught:
            await anext(client.events.tail("start"))
    assert (caught.value.code, caught.value.hint) == ("natsGone", "start it")


async def test_lines_of_a_log_that_match() -> None:
    world = World.make()
    world.step_logs.chunks = [b"error: a\nsec", b"ond\nan Error\n", b"error b"]
    async with _served(world) as client:
        run = await _create(client)
        task = run_task_id(run, "build")

        async def numbers(query: str, **how: bool) -> list[int]:
            return [line.number async for line in client.logs.search(run, task, 0, query, **how)]

        assert await numbers("error") == [0, 3]
        assert await numbers("error", ignore_case=True) == [0, 2, 3]
        assert await numbers("^e.*[ab]$", regex=True) == [0, 3]
        assert await numbers("^e.*[ab]$") == []
        (line,) = [line async for line in client.logs.search(run, task, None, "second")]
        assert (line.text, line.offset, line.time) == ("second", 9, datetime(1970, 1, 1, 0, 0, 9, tzinfo=UTC))
        for query, code in (("(", "invalidExpression"), ("", "invalidParameter"), ("x" * 1001, "invalidParameter")):
            with pytest.raises(ClientError) as raised:
                await numbers(query, regex=True)
            assert (raised.value.status, raised.value.code) == (400, code)


async def test_a_log_since_a_time() -> None:
    world = World.make()
    world.step_logs.chunks = [b"first\nsec", b"ond\nthird\n"]
    async with _served(world) as client:
        run = await _create(client)
        task = run_task_id(run, "build")
        for second, text in ((0, b"first\nsecond\nthird\n"), (1, b"second\nthird\n"), (7, b"third\n"), (14, b"")):
            since = datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC)
            assert await client.logs.get(run, task, 0, since=since) == text
            assert b"".join([chunk async for chunk in client.logs.follow(run, task, 0, since=since)]) == text
        with pytest.raises(ClientError, match="one of offset, tail and since"):
            await client.logs.get(run, task, 0, since=since, tail=1)


async def test_a_stored_log_has_a_tag_and_ranges() -> None:
    world = World.make()
    world.step_logs.chunks = [b"01234", b"56789"]
    async with _served(world) as client:
        run = await _create(client)
    log = f"/logs?runid={run}&taskid={run_task_id(run, 'build')}&step=0"
    async with world.http() as http:
        live = await http.get(log, headers={"Range": "bytes=1-2"})
        assert (live.status_code, live.content, "etag" in live.headers) == (200, b"0123456789", False)
        world.step_logs.stored = True
        whole = await http.get(log)
        tag = whole.headers["etag"]
        assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, b"0123456789", "bytes")
        assert (await http.get(log.replace("step=0", "setup"))).headers["etag"] != tag
        for wanted, content in (
            ("1-6", b"123456"),
            ("7-", b"789"),
            ("-4", b"6789"),
            ("8-99", b"89"),
            ("-99", b"0123456789"),
            (f"8-{1 << 70}", b"89"),
            (f"-{1 << 70}", b"0123456789"),
        ):
            part = await http.get(log, headers={"Range": f"bytes={wanted}", "If-Range": tag})
            begin = 10 - len(content) if not wanted[0].isdigit() else int(wanted[0])
            assert (part.status_code, part.content, part.headers["etag"]) == (206, content, tag)
            assert part.headers["content-range"] == f"bytes {begin}-{begin + len(content) - 1}/10"
            assert part.headers["content-length"] == str(len(content))
        for wanted in ("10-", "-0", "99-100", f"{1 << 63}-", f"{1 << 70}-{1 << 71}"):
            beyond = await http.get(log, headers={"Range": f"bytes={wanted}"})
            assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10")
        for headers in (
            {"Range": "bytes=0-1,3-4"},
            {"Range": "lines=1-2"},
            {"Range": "bytes=5-2"},
            {"Range": "bytes=-"},
        ):
            assert (await http.get(log, headers=headers)).status_code == 200
        assert (await http.get(log, headers={"Range": "bytes=0-1", "If-Range": '"other"'})).content == b"0123456789"
        for none_match in (tag, f'"other", W/{tag}', "*"):
            same = await http.get(log, headers={"If-None-Match": none_match})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
