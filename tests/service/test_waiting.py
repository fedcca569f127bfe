"""A process whose NATS or Postgres is unreachable waits, not ready, and goes on; at its start and later."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from runstream.client import Client, NewRun, RunResult
from runstream.embedded.process import free_port
from runstream.errors import DEPENDENCY_OF_CODE, InternalError
from runstream.jetstream.api import UnavailableError
from runstream.service.waiting import dependency_of
from tests.acceptance.load import task
from tests.links import link
from tests.servers import Servers
from tests.service.running import RUNSTREAM

TOKEN = "sesame"


class Process:
    """A `runstream serve` that may not serve yet."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.records: list[dict[str, Any]] = []
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.records.append(orjson.loads(line))
            self._more.set()

    async def until(self, action: str, **fields: object) -> dict[str, Any]:
        """Wait for a record of this action with these fields that was not asked for before; takes those up to it."""
        while True:
            while self.records:
                record = self.records.pop(0)
                if record["action"] == action and fields.items() <= record.items():
                    return record
            self._more.clear()
            await self._more.wait()

    async def until_it_serves(self) -> None:
        assert self.process.stdout is not None
        assert b" at http" in await self.process.stdout.readline()

    async def checks(self) -> tuple[int, dict[str, str]]:
        async with httpx2.AsyncClient() as http:
            answer = await http.get(f"{self.url}/readyz")
            return answer.status_code, answer.json()["checks"]

    async def ended(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


@asynccontextmanager
async def serving(
    folder: Path, servers: Servers, nats_url: str, database_url: str, components: str, *options: str
) -> AsyncIterator[Process]:
    port = free_port("127.0.0.1")
    words = ["--data-dir", str(folder / components), "serve", "--components", components, "--log-format", "json"]
    words += ["--nats-url", nats_url, "--database-url", database_url, "--namespace", servers.namespace]
    words += ["--database-schema", servers.schema, "--objects-dir", str(folder / "objects"), *options]
    words += ["--port" if "gateway" in components else "--metrics-port", str(port)]
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "RUNSTREAM_TOKEN": TOKEN}
    process = await asyncio.create_subprocess_exec(RUNSTREAM, *words, env=environment, stdout=pipe, stderr=pipe)
    try:
        yield Process(process, port)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("code", sorted(DEPENDENCY_OF_CODE))
def test_what_is_away_is_found_in_whatever_the_error_is_wrapped(code: str) -> None:
    try:
        try:
            raise InternalError("away", code=code)
        except InternalError as error:
            raise InternalError("the gateway has ended", code="componentEnded") from error
    except InternalError as error:
        group = ExceptionGroup("of a task group", [error])
    for_good = code in ("databaseCredentialsRefused", "databaseMissing")
    assert dependency_of(group) == (None if for_good else DEPENDENCY_OF_CODE[code])


def test_a_fault_is_nothing_to_wait_for() -> None:
    assert dependency_of(ValueError("x")) is None
    assert dependency_of(InternalError("x", code="gapInLog")) is None
    assert dependency_of(UnavailableError("INFO", "timeout")) == "nats"


async def test_an_executor_without_nats_waits_until_a_signal(servers: Servers, tmp_path: Path) -> None:
    async with link(servers.nats_url) as nats:
        nats.break_off()
        async with serving(tmp_path, servers, nats.url, servers.database_url, "executor") as process:
            await process.until("dependency_awaited", dependency="nats")
            status, checks = await process.checks()
            assert (status, list(checks)) == (503, ["nats"])
            assert await process.ended() == 0


async def test_a_gateway_waits_for_postgres_then_serves_and_survives_that_both_go_away(
    servers: Servers, tmp_path: Path
) -> None:
    async with link(servers.nats_url) as nats, link(servers.database_url) as postgres:
        postgres.break_off()
        everything = "gateway,scheduler,executor,datamanager"
        async with serving(tmp_path, servers, nats.url, postgres.url, everything, "--sandbox", "off") as process:
            await process.until("dependency_awaited", dependency="postgres")
            async with httpx2.AsyncClient() as http:
                refused = await http.post(f"{process.url}/api/v1alpha/runs", content=b"{}")
                page, root = await http.get(f"{process.url}/ui/runs/1"), await http.get(f"{process.url}/")
            assert (refused.status_code, refused.json()[0]["details"]["dependency"]) == (503, "postgres")
            assert (page.status_code, root.headers["location"]) == (200, "/ui/")
            assert "content-security-policy" in page.headers
            assert "retry-after" in refused.headers
            status, checks = await process.checks()
            assert (status, list(checks)) == (503, ["database"])
            postgres.mend()
            await process.until_it_serves()
            async with httpx2.AsyncClient() as http:
                store = (await http.get(f"{process.url}/readyz")).json()["nats_store"]
            assert store["left"] == store["limit"] - store["used"] > 0
            async with Client(process.url, token=TOKEN) as client:
                assert await _succeeds(client)
                for away in (nats, postgres):
                    away.break_off()
                    name = "nats" if away is nats else "database"
                    while (await process.checks())[1].get(name) == "ok":
                        pass
                    away.mend()
                    assert await _succeeds(client)
            assert await process.ended() == 0


async def _succeeds(client: Client) -> bool:
    new = NewRun("/project/web/branch/main", "one", {"one": task("one", "true")})
    run = await client.runs.create(new, idempotency_key=os.urandom(8).hex())
    async for commit in client.events.tail(run=run.id):
        if any(event.type == "RunFinished" for event in commit.events):
            return (await client.runs.get(run.id, at_least=commit.position)).result is RunResult.SUCCESS
    raise AssertionError("the events ended")
