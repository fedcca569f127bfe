"""Following step logs: answers come at once, unknown logs are 404, every byte arrives once, with no seam."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from pathlib import Path

import httpx2
import msgspec
import pytest

from runstream.client import Client, ClientError, NewRun, Run
from runstream.embedded.process import free_port
from tests.acceptance.deployment import RUNSTREAM, TOKEN, Deployment, Process, environment, in_one_process, servers
from tests.acceptance.load import task
from tests.links import Link, link

GROUP = "/project/web/branch/main"
NOWHERE = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
ROUNDS, LINES = 600, 60
"""How often the writing step writes, and how many lines each time."""
FOLLOWERS = 24


async def test_a_log_that_has_nothing_yet_is_answered_at_once(open_path: Path) -> None:
    gate = open_path / "gate"
    quiet = f"while [ ! -e {gate} ]; do sleep 0.05; done; echo opened"
    tasks = {"one": task("one", quiet, "echo second"), "two": task("two", "echo third", after=["one"])}
    async with in_one_process(open_path, "--sandbox", "off") as deployment, deployment.client() as client:
        run = await client.runs.create(NewRun(GROUP, "quiet", tasks))
        await _until_step_runs(client, run)
        async with _http(deployment) as http, asyncio.TaskGroup() as group:
            ready = asyncio.Barrier(4)
            places = [("one", 0), ("one", 1), ("two", 0)]
            bodies = [group.create_task(_headers_first(http, _query(run, *place), ready)) for place in places]
            await ready.wait()
            gate.touch()
        assert [body.result() for body in bodies] == [b"opened\n", b"second\n", b"third\n"]
        await _ended(client, run)
        done = await deployment.run("log", "get", run.id, "--timestamps")
        assert [re.sub(TIMESTAMP, "TIME ", line) for line in done.out.splitlines()] == [
            "one | TIME opened",
            "one | TIME second",
            "two | TIME third",
        ]
        assert (done.code, done.err) == (0, "")
        asked: list[tuple[tuple[str, ...], int, str]] = [
            (("--grep", "^S.*d$", "--ignore-case"), 0, "one | second\n"),
            (("--grep", "nothing"), 1, ""),
            (("--since", "1h"), 0, "one | opened\none | second\ntwo | third\n"),
            (("--since", "2999-01-01"), 0, ""),
        ]
        for options, code, out in asked:
            done = await deployment.run("log", "get", run.id, *options)
            assert (done.code, done.out, done.err) == (code, out, "")
        refused: list[tuple[tuple[str, ...], str]] = [
            (("--since", "yesterday"), "--since 'yesterday' is neither a duration nor a time"),
            (("--since", "1h", "--grep", "x"), "give either --since or --grep"),
            (("--grep", "("), "q: missing )"),
        ]
        for options, message in refused:
            done = await deployment.run("log", "get", run.id, *options)
            assert (done.code, done.out, message in done.err) == (1, "", True)
        one = run.task("one")
        assert one is not None
        (line,) = (await client.logs.lines(run.id, one.id, 0, -1)).lines
        assert (line.number, line.text, line.time is None) == (0, "opened", False)


async def _headers_first(http: httpx2.AsyncClient, query: dict[str, str], ready: asyncio.Barrier) -> bytes:
    """The body; `ready` is passed only when all answers have begun, before any step wrote a byte."""
    async with http.stream("GET", "/logs", params=query) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain;charset=UTF-8"
        await ready.wait()
        return b"".join([chunk async for chunk in answer.aiter_bytes()])


async def test_a_log_that_is_not_there(open_path: Path) -> None:
    tasks = {"one": task("one", "echo ready; seq 99; exit 3"), "two": task("two", "echo never", after=["one"])}
    async with in_one_process(open_path, "--sandbox", "off") as deployment, deployment.client() as client:
        run = await client.runs.create(NewRun(GROUP, "short", tasks))
        run = await _ended(client, run)
        one, skipped = run.task("one"), run.task("two")
        assert one is not None
        assert skipped is not None
        (failure,), more = msgspec.structs.astuple(await client.runs.failures(run.id))
        assert (failure.task, failure.step, failure.exit_status, more) == ("one", 0, 3, False)
        assert [(line.number, line.text) for line in failure.lines] == [
            (number, f"{number}") for number in range(50, 100)
        ]
        assert None not in {line.time for line in failure.lines}
        with pytest.raises(ClientError, match="does not exist"):
            await client.runs.failures(NOWHERE)
        async with _http(deployment) as http:
            for run_id, task_id, step in (
                (run.id, NOWHERE, "0"),
                (NOWHERE, one.id, "0"),
                (run.id, one.id, "1"),
                (run.id, skipped.id, "0"),
            ):
                for follow in ({}, {"follow": "1"}):
                    query = {"runid": run_id, "taskid": task_id, "step": step, **follow}
                    await _is_404(client, http, query)
        for words in (["no-such-task"], ["one", "--step", "1"], ["two", "--step", "0"], ["two", "--follow"]):
            done = await deployment.run("log", "get", run.id, *words)
            assert (done.code, done.out) == (1, ""), words
            assert done.err.startswith("error: "), words
            assert "log doesn't exist" in done.err
            assert "Traceback" not in done.err
        done = await deployment.run("log", "get", NOWHERE, "one")
        assert (done.code, done.out) == (1, "")
        assert f"log doesn't exist: run {NOWHERE} does not exist" in done.err


async def _is_404(client: Client, http: httpx2.AsyncClient, query: dict[str, str]) -> None:
    answer = await http.get("/logs", params=query)
    (error,) = answer.json()
    assert answer.status_code == 404
    assert "log doesn't exist" in error["message"]
    read = client.logs.follow if "follow" in query else client.logs.read
    with pytest.raises(ClientError, match="log doesn't exist") as caught:
        await anext(read(query["runid"], query["taskid"], int(query["step"])))
    assert (caught.value.status, caught.value.kind) == (404, "not-exist")


async def test_followers_that_come_at_any_moment_get_every_byte_once(open_path: Path) -> None:
    write = (
        f"i=0; while [ $i -lt {ROUNDS} ]; do seq $((i * {LINES})) $((i * {LINES} + {LINES} - 1)); i=$((i + 1)); done"
    )
    whole = b"".join(b"%d\n" % number for number in range(ROUNDS * LINES))
    moments = random.Random(open_path.name)  # noqa: S311  another each time; the name is shown when it fails
    async with in_one_process(open_path, "--sandbox", "off") as deployment, deployment.client() as client:
        run = await client.runs.create(NewRun(GROUP, "many", {"one": task("one", write)}))
        one = run.task("one")
        assert one is not None
        begin = sorted(moments.randrange(len(whole)) for _ in range(FOLLOWERS))
        bodies: list[asyncio.Task[bytes]] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(_follow_at_each_event(client, run, one.id, group, bodies))
            have = 0
            async for chunk in client.logs.follow(run.id, one.id, 0):
                assert whole.startswith(chunk, have)
                have += len(chunk)
                while begin and begin[0] <= have:
                    begin.pop(0)
                    bodies.append(group.create_task(_body(client, run.id, one.id)))
        assert have == len(whole)
        assert len(bodies) > FOLLOWERS
        for body in bodies:
            assert body.result() == whole
        assert await client.logs.get(run.id, one.id, 0) == whole


async def _follow_at_each_event(
    client: Client, run: Run, task_id: str, group: asyncio.TaskGroup, bodies: list[asyncio.Task[bytes]]
) -> None:
    """Start another follower at each event around the end of the step, up to the storing of its log."""
    async for commit in client.events.tail("start", run=run.id):
        bodies.append(group.create_task(_body(client, run.id, task_id)))
        if any(event.type == "RunArchived" for event in commit.events):
            return


async def _body(client: Client, run_id: str, task_id: str) -> bytes:
    return b"".join([chunk async for chunk in client.logs.follow(run_id, task_id, 0)])


async def _until_step_runs(client: Client, run: Run) -> None:
    async for commit in client.events.tail(run=run.id):
        if any(event.type == "ExecutorTaskStepStarted" for event in commit.events):
            return


async def _ended(client: Client, run: Run) -> Run:
    async for commit in client.events.tail(run=run.id):
        if any(event.type == "RunArchived" for event in commit.events):
            return await client.runs.get(run.id, at_least=commit.position)
    raise AssertionError("the events ended")


def _query(run: Run, name: str, step: int) -> dict[str, str]:
    found = run.task(name)
    assert found is not None
    return {"runid": run.id, "taskid": found.id, "step": str(step), "follow": "1"}


def _http(deployment: Deployment) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=f"{deployment.gateway.url}/api/v1alpha", headers={"Authorization": f"token {TOKEN}"}, timeout=20
    )


PARTS, PART_LINES = 5, 3000


async def test_what_is_followed_is_what_is_stored_whatever_happens_meanwhile(open_path: Path) -> None:
    """A gateway that stops, one that is killed, a link to NATS that is cut, an executor that stops its task."""
    gates = [open_path / f"gate{part}" for part in range(PARTS)]
    part = f"seq {PART_LINES}; while [ ! -e {open_path}/gate$n ]; do sleep 0.02; done"
    command = f"for n in {' '.join(map(str, range(PARTS)))}; do {part}; done"
    async with servers(open_path) as deployment, link(deployment.nats.url) as nats:
        gateway = deployment.process("gateway", "gateway", "--port", str(free_port("127.0.0.1")))
        gateway.words = [nats.url if word == deployment.nats.url else word for word in gateway.words]
        deployment.process("scheduler", "scheduler")
        executor = deployment.process("executor", "executor", "--sandbox", "off")
        await asyncio.gather(*(process.start() for process in deployment.processes.values()))
        async with deployment.client() as client, asyncio.TaskGroup() as group:
            run = await client.runs.create(NewRun(GROUP, "troubled", {"one": task("one", command)}))
            one = run.task("one")
            assert one is not None
            followed = _Followed(client, run.id, one.id)
            await followed.until_part(1)
            printing, printed = await _printed(deployment, run, group)
            for number, trouble in enumerate((_stopped, _killed, _cut, None)):
                await followed.until_part(number + 1)
                if trouble is not None:
                    await trouble(gateway, nats, gates[number].touch)
                gates[number].touch()
            await followed.until_part(PARTS)
            await executor.stop()
            await executor.start()
            await followed.to_the_end()
            stored = await client.logs.get(run.id, one.id, 0)
            assert followed.bytes == stored
            assert stored.startswith(PARTS * b"".join(b"%d\n" % line for line in range(1, PART_LINES + 1)))
            assert await printed == stored[1:]
            assert await printing.wait() == 0


async def _printed(
    deployment: Deployment, run: Run, group: asyncio.TaskGroup
) -> tuple[asyncio.subprocess.Process, asyncio.Task[bytes]]:
    """`runstream log get --follow`, once it has printed its first byte, and all that it prints behind that."""
    reached = ("--url", deployment.gateway.url, "--token", TOKEN)
    words = (*reached, "log", "get", run.id, "one", "--step", "0", "--follow")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(RUNSTREAM, *words, env=environment(), stdout=pipe)
    assert process.stdout is not None
    assert await process.stdout.read(1) == b"1"
    return process, group.create_task(process.stdout.read())


class _Followed:
    """A log as its follower has it."""

    def __init__(self, client: Client, run_id: str, task_id: str) -> None:
        self.bytes = b""
        self._chunks = client.logs.follow(run_id, task_id, 0)

    async def until_part(self, parts: int) -> None:
        while self.bytes.count(b"\n") < parts * PART_LINES:
            self.bytes += await anext(self._chunks)

    async def to_the_end(self) -> None:
        async for chunk in self._chunks:
            self.bytes += chunk


async def _stopped(gateway: Process, _: Link, let_on: Callable[[], None]) -> None:
    assert await gateway.stop() == 0
    let_on()
    await gateway.start()


async def _killed(gateway: Process, _: Link, let_on: Callable[[], None]) -> None:
    await gateway.kill()
    let_on()
    await gateway.start()


async def _cut(_: Process, nats: Link, let_on: Callable[[], None]) -> None:
    nats.break_off()
    let_on()
    await asyncio.sleep(0.5)  # sleeps: the cut lasts; what is written now is not heard
    nats.mend()
