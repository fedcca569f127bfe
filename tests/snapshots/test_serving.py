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
from runstream.gateway.answers import error_answer
from runstream.gateway.routes.exports import export_routes
from runstream.objects import PosixObjects
from runstream.snapshots.serving import AT_ONCE, LogExports
from runstream.snapshots.verifying import verify
from runstream.telemetry.serving import HttpServer
from tests.snapshots.files import CREATED, generated


@asynccontextmanager
async def serving(log: GeneratedLog, folder: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async def served() -> GeneratedLog:
        return log

    app = FastAPI(exception_handlers={RunstreamError: _told})
    app.include_router(export_routes(LogExports(served, PosixObjects(folder / "objects"), lambda: CREATED)))
    server = HttpServer(app)
    await server.start()
    try:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            yield client
    finally:
        await server.stop()


async def _told(_request: Request, error: Exception) -> Response:
    return error_answer(error, detailed=False)


async def test_the_log_is_answered_as_a_file(tmp_path: Path) -> None:
    async with serving(generated(), tmp_path) as client:
        answer = await client.get("/export")
    (tmp_path / "s").write_bytes(answer.content)
    assert answer.headers["content-disposition"] == 'attachment; filename="shop-20261123T021640Z.snapshot.tar"'
    assert verify(tmp_path / "s").good


async def test_what_is_asked_for(tmp_path: Path) -> None:
    async with serving(generated(), tmp_path) as client:
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


class BreakingLog(GeneratedLog):
    """Fails in the middle."""

    @asynccontextmanager
    async def read(self, partition: int, after: int, *, filters: Sequence[str] = ()) -> AsyncIterator[GeneratedReader]:
        if partition == 2:
            raise InternalError("the log is gone")
        async with GeneratedLog.read(self, partition, after) as reader:
            yield reader


async def test_a_log_that_fails_cuts_the_file_off(tmp_path: Path) -> None:
    received, cut = b"", False
    log = BreakingLog(24, 3, generated().subjects)
    async with serving(log, tmp_path) as client, client.stream("GET", "/export") as answer:
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


async def test_only_a_few_at_once(tmp_path: Path) -> None:
    async with serving(WaitingLog(24, 3, generated().subjects), tmp_path) as client, asyncio.TaskGroup() as group:
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
