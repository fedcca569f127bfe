"""The same key and request give the same runs, at any gateway, however many ask at once; another request is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from runstream.commits import Position
from runstream.events.run import RunCancelled, RunCreated, RunStarted
from runstream.log.port import AppendConflictError
from runstream.sealing import Keyring
from runstream.subjects import Address, partition_of
from tests.gateway.test_creating_runs import CONFIG
from tests.gateway.world import World, run_body, task
from tests.log.memory import MemoryLog

P = partition_of("/project/web", 4)
KEY = {"Idempotency-Key": "deploy-7"}
FILE = {"config": {"name": "config.yml", "content": CONFIG}, "group": "/project/web/x", "branch": "main"}


async def _post(world: World, path: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
    async with world.http() as http:
        return await http.post(path, json=body, headers={**KEY, **headers})


async def _created(world: World) -> list[str]:
    """The ids of all runs in the log."""
    runs = []
    for partition in range(world.log.partitions):
        end, after = await world.log.end(partition), 0
        async with world.log.read(partition, 0) as reader:
            while after < end:
                for message in await reader.next_batch():
                    after = message.position.sequence
                    if ".run." in message.subject and b"RunCreated" in message.data:
                        runs.append(message.subject.rpartition(".")[2])
    return runs


async def test_the_same_request_gives_the_same_run_and_appends_nothing() -> None:
    world = World.make()
    first = await _post(world, "/runs", run_body())
    end = await world.log.end(P)
    second = await _post(World.make(log=world.log), "/runs", run_body())
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert first.headers["Runstream-Position"] == second.headers["Runstream-Position"]
    assert await world.log.end(P) == end


async def test_it_is_answered_as_it_was_created_however_far_it_is() -> None:
    world = World.make()
    first = await _post(world, "/runs", run_body())
    await world.append(Address(P, "run", first.json()["run"]["id"]), RunStarted())
    assert (await _post(world, "/runs", run_body())).json() == first.json()


async def test_the_order_of_fields_makes_no_other_request_and_their_content_does() -> None:
    world = World.make()
    first = await _post(world, "/runs", run_body())
    turned = await _post(world, "/runs", dict(reversed(run_body().items())))
    assert turned.json() == first.json()
    for other in (
        run_body(name="other"),
        run_body(environment={"A": "1"}),
        run_body(run_config_tasks={"t1": task("x")}),
    ):
        answer = await _post(world, "/runs", other)
        (error,) = answer.json()
        assert (answer.status_code, error["code"], error["kind"]) == (409, "idempotencyKeyReused", "conflict")
        assert error["details"] == {"run": first.json()["run"]["id"]}
    answer = await _post(world, "/createruns", {**FILE, "group": "/project/web/branch/main"})
    assert answer.status_code == 409
    assert len(await _created(world)) == 1


async def test_a_key_is_of_one_project() -> None:
    world = World.make()
    ids = set()
    for group in ("/project/web/a", "/project/api/a", "/user/web/a"):
        ids.add((await _post(world, "/runs", run_body(group=group))).json()["run"]["id"])
    assert len(ids) == 3
    without = {
        (await _post(world, "/runs", run_body(), **{"Idempotency-Key": key})).json()["run"]["id"] for key in "ab"
    }
    assert len(without - ids) == 2


async def test_all_runs_of_a_file_are_those_of_the_key() -> None:
    world = World.make()
    first = await _post(world, "/createruns", FILE)
    second = await _post(world, "/createruns", FILE)
    assert (first.status_code, second.status_code) == (201, 200)
    assert [one["run"]["name"] for one in first.json()["runs"]] == ["first", "only-on-main"]
    assert second.json() == first.json()
    assert len(await _created(world)) == 2


async def test_a_half_created_request_is_completed() -> None:
    log = MemoryLog()
    world = World.make(log=Dying(log, after=1))
    assert (await _post(world, "/createruns", FILE)).status_code == 503
    assert len(await _created(world)) == 1
    again = await _post(World.make(log=log), "/createruns", FILE)
    assert (again.status_code, len(again.json()["runs"])) == (201, 2)
    assert len(await _created(world)) == 2


async def test_another_file_creates_none_of_its_runs() -> None:
    """Also where it has more runs than the one that used the key first."""
    world = World.make()
    fewer = {**FILE, "branch": "dev"}
    assert len((await _post(world, "/createruns", fewer)).json()["runs"]) == 1
    assert (await _post(world, "/createruns", FILE)).status_code == 409
    assert len(await _created(world)) == 1


@pytest.mark.parametrize("same", [True, False])
async def test_of_many_at_once_one_creates(same: bool) -> None:
    log = MemoryLog()
    worlds = [World.make(log=log) for _ in range(8)]
    bodies = [run_body() if same else run_body(name=f"n{number}") for number in range(8)]
    answers = await asyncio.gather(*(_post(one, "/runs", body) for one, body in zip(worlds, bodies, strict=True)))
    assert len(await _created(worlds[0])) == 1
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == ([200] * 7 + [201] if same else [201] + [409] * 7)


async def test_the_later_of_two_racing_requests_gets_the_run_of_the_earlier() -> None:
    """The other request comes between the look and the append."""
    log = Raced()
    world, other = World.make(log=log), World.make(log=log.inner)

    async def first() -> None:
        answer = await _post(other, "/runs", run_body())
        log.expected = answer.json()["run"]["id"]

    log.before = first
    answer = await _post(world, "/runs", run_body())
    assert (answer.status_code, answer.json()["run"]["id"]) == (200, log.expected)


async def test_a_restart_has_keys_too() -> None:
    world = World.make()
    async with world.http() as http:
        run = (await http.post("/runs", json=run_body())).json()["run"]["id"]
    await world.append(Address(P, "run", run), RunCancelled(""))
    first = await _post(world, "/runs", {"run_id": run, "from_start": True})
    second = await _post(world, "/runs", {"run_id": run, "from_start": True})
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json()
    assert second.json()["run"]["restart"]["run_id"] == run
    assert (await _post(world, "/runs", {"run_id": run})).status_code == 409


@pytest.mark.parametrize("key", ["", "x" * 256, "ü"])
async def test_what_is_no_key(key: str) -> None:
    async with World.make().http() as http:
        answer = await http.post("/runs", json=run_body(), headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (400, "invalidIdempotencyKey")


def _with_secret(value: str) -> dict[str, Any]:
    return {**FILE, "secret_files": [{"name": "secrets.yml", "content": f"PASSWORD: {value}"}]}


async def test_other_variables_and_other_secrets_are_another_request() -> None:
    world = World.make()
    assert (await _post(world, "/createruns", _with_secret("one"))).status_code == 201
    assert (await _post(world, "/createruns", _with_secret("one"))).status_code == 200
    for other in (_with_secret("two"), FILE, {**_with_secret("one"), "variables": {"A": "1"}}):
        assert (await _post(world, "/createruns", other)).status_code == 409


async def test_the_log_knows_no_digest_of_a_secret_that_could_be_guessed() -> None:
    """It is keyed: another key makes another digest. A gateway that lacks the key cannot compare, and trusts."""
    worlds = [World.make(keyring=Keyring.of([bytes([number] * 32)])) for number in (1, 2)]
    digests = []
    for world in worlds:
        await _post(world, "/createruns", _with_secret("one"))
        (stored, *_) = await world.log.history(Address(P, "run", (await _created(world))[0]))
        (event,) = stored.commit.events
        assert isinstance(event, RunCreated)
        digests.append(event.request.split("."))
    (plain, *keyed), (other_plain, *other_keyed) = digests
    assert plain == other_plain
    assert (len(keyed), set(keyed) & set(other_keyed)) == (2, set())
    elsewhere = World.make(log=worlds[0].log, keyring=worlds[1].context.keyring)
    assert (await _post(elsewhere, "/createruns", _with_secret("two"))).status_code == 200
    assert (await _post(worlds[0], "/createruns", _with_secret("two"))).status_code == 409


class Dying(MemoryLog):
    """A log that is away after so many runs."""

    def __init__(self, inner: MemoryLog, after: int) -> None:
        super().__init__()
        self.streams = inner.streams
        self.after = after

    async def append_all(self, commits: Any) -> list[Position | AppendConflictError]:
        if any(commit.address.kind == "run" for commit in commits):
            self.after -= 1
            if self.after < 0:
                raise ConnectionError("gone")
        return await super().append_all(commits)


class Raced(MemoryLog):
    """A log in which another writer appends a run just before our first one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = MemoryLog()
        self.inner.streams = self.streams
        self.before: Any = None
        self.expected = ""

    async def append_all(self, commits: Any) -> list[Position | AppendConflictError]:
        before = self.before
        if before is not None and any(commit.address.kind == "run" for commit in commits):
            self.before = None
            await before()
        return await super().append_all(commits)
