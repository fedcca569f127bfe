"""The export as the gateway answers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from benchmarks.generate import GeneratedLog, GeneratedReader
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from runstream.commits import LogPosition
from runstream.errors import InternalError, RunstreamError
from runstream.gateway.access import PREFIX, require_login
from runstream.gateway.errors import error_response
from runstream.gateway.routes.maintenance import export_routes
from runstream.objects import ObjectStorage
from runstream.snapshots.export import AT_ONCE, LogExports
from runstream.snapshots.objects import object_chunks, objects
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.verify import verify
from runstream.telemetry.http_server import HttpServer
from tests.snapshots.files import CREATED, generated

TASK = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"


@asynccontextmanager
async def serving(log: GeneratedLog, storage: ObjectStorage) -> AsyncIterator[httpx2.AsyncClient]:
    async def served() -> list[GeneratedLog]:
        return [log]

    app = FastAPI(exception_handlers={RunstreamError: _told})
    exports = LogExports(served, storage, lambda: CREATED)
    app.dependency_overrides[require_login] = lambda: None  # nothing here knows a sender
    app.include_router(export_routes({"": exports, "runs": exports}))
    server = HttpServer(app)
    await server.start()
    try:
        async with httpx2.AsyncClient(base_url=f"{server.url}{PREFIX}") as client:
            yield client
    finally:
        await server.stop()


async def _told(_request: Request, error: Exception) -> Response:
    return error_response(error, detailed=False)


async def test_the_log_is_answered_as_a_file(storage: ObjectStorage, tmp_path: Path) -> None:
    async with serving(generated(), storage) as client:
        answer = await client.get("/export")
    (tmp_path / "s").write_bytes(answer.content)
    assert answer.headers["content-disposition"] == 'attachment; filename="shop-20261123T021640Z.snapshot.tar"'
    assert verify(tmp_path / "s").good


async def test_what_is_asked_for(storage: ObjectStorage, tmp_path: Path) -> None:
    async with serving(generated(), storage) as client:
        answer = await client.get("/export", params={"until": "1:3,0,17", "with": "logs,archives"})
        (tmp_path / "s").write_bytes(answer.content)
        for wrong in ({"until": "yesterday"}, {"until": "2026-01-01T00:00:00"}, {"until": "1:1"}, {"with": "caches"}):
            refused = await client.get("/export", params=wrong)
            assert refused.status_code == 400
            assert refused.json()[0]["hint"]
    report = verify(tmp_path / "s")
    assert report.good
    assert report.manifest is not None
    assert report.header is not None
    assert str(LogPosition(1, report.manifest.positions)) == "1:3,0,17"
    assert report.header.objects == ("logs", "archives")


async def test_objects_come_along(storage: ObjectStorage, tmp_path: Path) -> None:
    stored = {f"logs/{TASK}/data/setup.log": b"setup" * 100_000, f"workspacearchives/{TASK}/data/0.tar": b"tar"}
    await storage.write_all(stored)
    async with serving(generated(), storage) as client:
        answer = await client.get("/export", params={"with": "logs,archives"})
    (tmp_path / "s").write_bytes(answer.content)
    assert verify(tmp_path / "s").good
    with open_snapshot(tmp_path / "s") as snapshot:
        found = {one.path: b"".join(object_chunks(snapshot, one)) for one in objects(snapshot)}
    assert found == stored


class BreakingLog(GeneratedLog):
    """Fails in the middle."""

    @asynccontextmanager
    async def read(self, partition: int, after: int, *, filters: Sequence[str] = ()) -> AsyncIterator[GeneratedReader]:
        if partition == 2:
            raise InternalError("the log is gone")
        async with GeneratedLog.read(self, partition, after) as reader:
            yield reader


async def test_a_log_that_fails_cuts_the_file_off(storage: ObjectStorage, tmp_path: Path) -> None:
    received, cut = b"", False
    log = BreakingLog(24, 3, generated().subjects)
    async with serving(log, storage) as client, client.stream("GET", "/export") as answer:
        assert answer.status_code == 200
        try:
            async for chunk in answer.aiter_bytes():
                received += chunk
        except httpx2.RemoteProtocolError:
            cut = True
    assert cut
    (tmp_path / "s").write_bytes(received)
    assert "ends after" in str(verify(tmp_path / "s").problems[0])


class WaitingLog(GeneratedLog):
    """Does not go on."""

    @asynccontextmanager
    async def read(self, partition: int, after: int, *, filters: Sequence[str] = ()) -> AsyncIterator[GeneratedReader]:
        await asyncio.Event().wait()
        async with GeneratedLog.read(self, partition, after) as reader:
            yield reader


async def test_only_a_few_at_once(storage: ObjectStorage) -> None:
    async with serving(WaitingLog(24, 3, generated().subjects), storage) as client, asyncio.TaskGroup() as group:
        ready = [asyncio.Event() for _ in range(AT_ONCE)]
        waiting = [group.create_task(_begin(client, event)) for event in ready]
        for event in ready:
            await event.wait()
        refused = await client.get("/export")
        assert (refused.status_code, refused.json()[0]["code"]) == (409, "exportsBusy")
        for task in waiting:
            task.cancel()


async def _begin(client: httpx2.AsyncClient, ready: asyncio.Event) -> None:
    async with client.stream("GET", "/export") as answer:
        async for _ in answer.aiter_bytes():
            ready.set()
