"""Imports through the API: progress comes line by line, and an import goes on when its client disconnects."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from runstream.client import Client, ClientError, ImportProgress
from runstream.errors import BadRequestError, RunstreamError
from runstream.gateway.access import require_login
from runstream.gateway.errors import error_response
from runstream.gateway.routes.maintenance import import_routes
from runstream.importing.importer import ImportedService, ServedImports
from runstream.objects import ObjectStorage
from runstream.snapshots.reading import open_snapshot
from runstream.telemetry.http_server import HttpServer
from tests.servers import Servers
from tests.snapshots.files import generated, written

from .rig import Parked, Rig, rig

LINES = {"Accept": "application/x-ndjson"}


@dataclass
class Waiting(Parked):
    """Members that are all parked; the last check for it blocks."""

    waits: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def require(self) -> None:
        self.waits.set()
        await self.goes_on.wait()
        await super().require()


@dataclass
class Service:
    rig: Rig
    url: str
    parked: Waiting
    refusal: RunstreamError | None = None
    seen: list[ImportProgress] = field(default_factory=list)

    async def require_parked(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    @property
    def steps(self) -> list[str]:
        """Return the steps that the answer reports, in order."""
        return list(dict.fromkeys(progress.step for progress in self.seen))


@asynccontextmanager
async def serving(servers: Servers, storage: ObjectStorage, folder: Path) -> AsyncIterator[Service]:
    async with rig(servers) as around:
        service = Service(around, "", Waiting())
        imported = ImportedService(around.place, service.parked.hold, service.require_parked)
        imports = ServedImports([imported], storage, folder / "spool")
        app = FastAPI(exception_handlers={RunstreamError: _told})
        app.dependency_overrides[require_login] = lambda: None  # nothing here knows a sender
        app.include_router(import_routes({"": imports, "runs": imports}))
        server = HttpServer(app)
        await server.start()
        try:
            service.url = server.url
            yield service
        finally:
            await server.stop()


async def _told(_request: Request, error: Exception) -> Response:
    return error_response(error, detailed=False)


async def pieces(path: Path) -> AsyncIterator[bytes]:
    content = await asyncio.to_thread(path.read_bytes)
    for begin in range(0, len(content), 1 << 16):
        yield content[begin : begin + (1 << 16)]


async def test_how_far_it_is_and_what_came_of_it(servers: Servers, storage: ObjectStorage, tmp_path: Path) -> None:
    manifest = await written(tmp_path / "first", generated(300))
    async with serving(servers, storage, tmp_path) as service:
        service.parked.goes_on.set()
        async with Client(service.url) as client:
            done = await client.snapshots.load(pieces(tmp_path / "first"), name="first", tell=service.seen.append)
            assert (done.commits, done.here_epoch, done.parked) == (manifest.commits, 2, 0)
            assert service.steps[0] == "verifying"
            assert set(service.steps) <= {"verifying", "loading", "making indexes", "switching"}
            assert all(0 <= one.done <= one.total for one in service.seen)
            plain = await client.snapshots.load(pieces(tmp_path / "first"), dry_run=True)
            assert (plain.dry, plain.here_epoch) == (True, 2)
            service.seen.clear()
            again = await client.snapshots.load(pieces(tmp_path / "first"), dry_run=True, tell=service.seen.append)
            assert again == plain
            assert service.steps == ["verifying"]
        assert not list((tmp_path / "spool").iterdir())


async def test_it_goes_on_when_the_client_leaves_and_is_asked_for_again(
    servers: Servers, storage: ObjectStorage, tmp_path: Path
) -> None:
    await written(tmp_path / "first", generated(30))
    async with serving(servers, storage, tmp_path) as service:
        api = f"{service.url}/api/v1alpha"
        async with httpx2.AsyncClient(timeout=60) as http:
            none = await http.get(f"{api}/import")
            assert (none.status_code, none.json()[0]["code"]) == (404, "noImport")
            content = (tmp_path / "first").read_bytes()
            async with http.stream("POST", f"{api}/import", content=content, headers=LINES) as answer:
                assert answer.headers["content-type"] == "application/x-ndjson"
                first = json.loads(await anext(answer.aiter_lines()))
                assert first["progress"]["step"]
            await service.parked.waits.wait()
            states = {one["epoch"]: one["state"] for one in (await http.get(f"{api}/epochs")).json()}
            assert states == {1: "ready", 2: "loading"}
            now = (await http.get(f"{api}/import")).json()
            assert (now["name"], now["result"], now["error"]) == ("a snapshot", None, None)
            assert now["progress"]["step"] == "switching"
            async with asyncio.TaskGroup() as group, Client(service.url) as client:
                followed = [group.create_task(client.snapshots.follow(service.seen.append)) for _ in range(2)]
                while len(service.seen) < 2:
                    await asyncio.wait(followed, timeout=0.01)
                service.parked.goes_on.set()
                reports = [await each for each in followed]
            assert service.steps == ["switching"]
            assert reports[0] == reports[1]
            assert reports[0].here_epoch == 2
            ended = (await http.get(f"{api}/import")).json()
            assert (ended["progress"], ended["result"]["here_epoch"]) == (None, 2)
        assert (await service.rig.fsck()).clean


@pytest.mark.parametrize("flags", ["", "?dry_run"])
async def test_a_file_that_would_leave_the_service_no_room_is_refused_and_not_kept(
    flags: str, servers: Servers, storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: str) -> SimpleNamespace:
        return SimpleNamespace(free=(256 << 20) + 40_000)

    monkeypatch.setattr(shutil, "disk_usage", full)
    async with serving(servers, storage, tmp_path) as service, httpx2.AsyncClient(timeout=60) as http:
        api = f"{service.url}/api/v1alpha/import{flags}"
        refused = await http.post(api, content=zeros(1_000))
        (error,) = refused.json()
        assert (refused.status_code, error["code"]) == (500, "diskFull")
        assert "256 MiB" in error["message"]
        assert not list((tmp_path / "spool").iterdir())
        assert [one.state for one in (await service.rig.epochs()).values()] == ["ready"]


async def zeros(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(50_000)


async def test_what_is_refused_at_once_and_what_fails_on_the_way(
    servers: Servers, storage: ObjectStorage, tmp_path: Path
) -> None:
    await written(tmp_path / "first", generated(30))
    with open_snapshot(tmp_path / "first") as snapshot:
        place = snapshot.places[snapshot.manifest.segments[0].name]
    broken = bytearray((tmp_path / "first").read_bytes())
    broken[place.offset + 100] ^= 1
    async with serving(servers, storage, tmp_path) as service:
        service.parked.goes_on.set()
        service.refusal = BadRequestError("not in maintenance mode", code="notInMaintenance")
        api = f"{service.url}/api/v1alpha/import"
        async with httpx2.AsyncClient(timeout=60) as http, Client(service.url) as client:
            refused = await http.post(api, content=bytes(broken), headers=LINES)
            assert (refused.status_code, refused.json()[0]["code"]) == (400, "notInMaintenance")
            assert (await http.get(api)).status_code == 404
            for flag in (
                "?dry_run",
                "?dry_run&name=x",
            ):  # what it would change is only known of a service that is parked
                refused = await http.post(f"{api}{flag}", content=bytes(broken))
                assert (refused.status_code, refused.json()[0]["code"]) == (400, "notInMaintenance")
            service.refusal = None
            answer = await http.post(api, content=bytes(broken), headers=LINES)
            assert answer.status_code == 200
            error = json.loads(answer.text.splitlines()[-1])["error"]
            assert error[0]["code"] == "damagedSnapshot"
            plain = await http.post(api, content=bytes(broken))
            assert (plain.status_code, plain.json()) == (400, error)
            (tmp_path / "broken").write_bytes(broken)
            with pytest.raises(ClientError) as caught:
                await client.snapshots.load(pieces(tmp_path / "broken"), tell=service.seen.append)
            assert caught.value.code == "damagedSnapshot"
            with pytest.raises(ClientError, match="SHA-256"):
                await client.snapshots.follow(service.seen.append)
            service.parked.error = BadRequestError("maintenance has ended", code="occupationLost")
            with pytest.raises(ClientError, match="maintenance has ended"):
                await client.snapshots.load(pieces(tmp_path / "first"), tell=service.seen.append)
        assert {one.state for one in (await service.rig.epochs()).values()} == {"ready", "deleted"}
