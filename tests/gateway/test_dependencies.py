"""A gateway whose NATS or Postgres is unreachable: every route answers 503 and names it; clients wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from prometheus_client import CollectorRegistry

from runstream.client import Client
from runstream.gateway.app import Backends, Gateway
from runstream.jetstream.messaging import Questions
from runstream.objects import PosixObjects
from runstream.objects.caches import StoredCaches
from runstream.objects.references import SharedObjects
from runstream.projections.as_of import RunsAsOf
from runstream.settings import Settings
from runstream.steplogs.reader import StepLogReader
from runstream.telemetry import setup_logging
from runstream.telemetry.process import Telemetry
from tests.gateway.world import TOKEN, run_body
from tests.links import Link, link
from tests.scheduler.standing import standing
from tests.servers import Servers

RUN = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
FILE = "runs: [{name: a, tasks: [{name: b, runtime: {type: host}, steps: []}]}]"
BODIES: dict[str, Any] = {
    "/runs": run_body(),
    "/createruns": {"format": "yaml", "content": FILE},
    "/runs/{run_id}/actions": {"action_type": "stop"},
    "/runs/{run_id}/tasks/{task_id}/actions": {"action_type": "approve"},
}
NAMES = {"run_id": RUN, "task_id": RUN, "executor_id": "e1", "escaped_group": "%2Fproject%2Fweb"}
NAMES |= dict.fromkeys(("counter", "run_counter", "run_number"), "1")


class _Names(dict[str, str]):
    """The values of path parameters; each other one is a name that nothing has."""

    def __missing__(self, key: str) -> str:
        return "nothing"


@dataclass
class Place:
    """A gateway in this process, linked to its servers."""

    url: str
    gateway: Gateway
    nats: Link
    postgres: Link

    def http(self) -> httpx2.AsyncClient:
        headers = {"Authorization": f"token {TOKEN}"}
        return httpx2.AsyncClient(base_url=f"{self.url}/api/v1alpha", headers=headers, timeout=20)


@asynccontextmanager
async def place(servers: Servers, folder: Path) -> AsyncIterator[Place]:
    setup_logging("error")
    async with (
        link(servers.nats_url) as nats,
        link(servers.database_url) as postgres,
        standing(replace(servers, nats_url=nats.url, database_url=postgres.url)) as around,
    ):
        objects = PosixObjects(folder / "objects")
        logs, shared = StepLogReader(around.nats, servers.namespace, around.log, objects), SharedObjects(objects)
        past, questions = RunsAsOf(around.log), Questions(around.nats)
        behind = Backends(around.log, around.database, past, logs, StoredCaches(objects), shared, questions)
        telemetry = Telemetry("test", CollectorRegistry(), [])
        gateway = Gateway(Settings(data_dir=folder, token=TOKEN), behind, telemetry)
        await gateway.start()
        try:
            yield Place(gateway.url, gateway, nats, postgres)
        finally:
            nats.mend()
            postgres.mend()
            await gateway.stop()


async def every_route(http: httpx2.AsyncClient) -> dict[str, httpx2.Response]:
    """The answer of each operation that the description names, all asked at once."""
    paths = (await http.get("/openapi.json")).json()["paths"]
    answers: dict[str, httpx2.Response] = {}

    async def ask(method: str, path: str) -> None:
        short = path.removeprefix("/api/v1alpha")
        named = short.format_map(_Names(NAMES))
        params = {"/logs": {"runid": RUN, "taskid": RUN, "step": "0"}, "/events": {"from": "end"}}.get(short, {})
        body = orjson.dumps(BODIES.get(short, {})) if method in ("post", "put") else None
        async with http.stream(method.upper(), named, params=params, content=body) as answer:
            if answer.is_error:  # an event stream that began has no end
                await answer.aread()
            answers[f"{method} {short}"] = answer

    async with asyncio.TaskGroup() as group:
        for path, operations in paths.items():
            for method in operations:
                group.create_task(ask(method, path))
    return answers


@pytest.mark.parametrize("away", ["nats", "postgres"])
async def test_every_route_that_needs_what_is_away_says_503_and_names_it(
    servers: Servers, tmp_path: Path, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.log.jetstream.UNSENT_SECONDS", 0.2)
    async with place(servers, tmp_path) as at, at.http() as http:
        (at.nats if away == "nats" else at.postgres).break_off()
        answers = await every_route(http)
        # This gateway has no users and projects, whatever is away, nor a key for secrets.
        lacks = ("configNotReady", "noSecretsKey")
        answers = {r: a for r, a in answers.items() if not a.is_error or a.json()[0]["code"] not in lacks}
        refused = {route: answer for route, answer in answers.items() if answer.status_code == 503}
        wrong = {
            r: (a.status_code, a.text[:300]) for r, a in answers.items() if a.status_code >= 500 and r not in refused
        }
        assert not wrong
        assert {answer.json()[0]["details"]["dependency"] for answer in refused.values()} == {away}
        assert all(answer.headers["retry-after"] == "2" for answer in refused.values())
        if away == "nats":
            assert {"post /runs", "get /logs", "get /events"} <= set(refused)
            uncertain = [answer.json()[0]["details"].get("uncertain") for answer in refused.values()]
            assert True not in uncertain
        else:
            assert {"get /runs", "get /executors"} <= set(refused)


async def test_a_client_waits_for_what_is_away(servers: Servers, tmp_path: Path) -> None:
    told = asyncio.Event()
    async with (
        place(servers, tmp_path) as at,
        Client(at.url, token=TOKEN, waiting=lambda _: told.set()) as client,
    ):
        at.postgres.break_off()
        reading = asyncio.create_task(client.executors.list())
        await told.wait()
        at.postgres.mend()
        assert await reading == ()


async def test_a_run_that_nats_does_not_acknowledge_is_soon_503_with_an_uncertain_outcome(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.log.patience.REQUEST_SECONDS", 0.1)
    async with place(servers, tmp_path) as at, at.http() as http:
        at.nats.cut()
        async with asyncio.timeout(15):  # background appends go on for 30 seconds
            answer = await http.post("/runs", content=orjson.dumps(run_body()))
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (503, "logUnreachable")
    assert error["details"]["uncertain"]
    assert "may be in the log all the same" in error["hint"]
    assert "Retry-After" in answer.headers
