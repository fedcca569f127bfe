"""The port of a gateway answers from the wait for a dependency until the gateway serves, without a gap."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from runstream.embedded.process import free_port
from runstream.errors import InternalError
from runstream.jetstream.api import UnavailableError
from runstream.lifecycle import Component
from runstream.service.serve import StopRequest, taking_over
from runstream.service.waiting import Waiting
from runstream.settings import Settings
from runstream.telemetry.http_server import HttpServer
from runstream.telemetry.process import setup_telemetry


class Slow(Component):
    """A component whose start waits for a dependency that is lost again."""

    name = "instance"

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.found = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None

    async def run(self) -> None:
        self.begun.set()
        await self.found.wait()
        if self.error is not None:
            raise self.error
        self.started.set()
        await self.stopping.wait()


def gateway(port: int) -> HttpServer:
    return HttpServer(Starlette(routes=[Route("/version", lambda _: PlainTextResponse("it serves"))]), port=port)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_dependency_lost_before_the_gateway_serves_is_a_503_until_then(tmp_path: Path, lost: bool) -> None:
    port = free_port("127.0.0.1")
    settings = Settings(components=("gateway",), data_dir=tmp_path, port=port)
    slow = Slow()
    slow.error = UnavailableError("an append", "NATS does not answer") if lost else None

    async def serve(waiting: Waiting) -> str:
        async with taking_over(waiting, [slow], gateway(port), StopRequest(), {}):
            return await answer(port)

    async with Waiting(settings, setup_telemetry(settings, "gateway"), port) as waiting:
        await waiting.until_next_attempt(UnavailableError("an append", "NATS does not answer"))
        serving = asyncio.create_task(serve(waiting))
        await slow.begun.wait()
        assert "waiting for" in await answer(port)
        slow.found.set()
        if lost:
            with pytest.raises(InternalError):
                await serving
            assert "waiting for" in await answer(port)
        else:
            assert await serving == "it serves"


class HeldServer(HttpServer):
    """A gateway that is slow to start."""

    def __init__(self, port: int) -> None:
        super().__init__(Starlette(routes=[Route("/version", lambda _: PlainTextResponse("it serves"))]), port=port)
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        self.begun.set()
        await self.go_on.wait()
        await super().run()


async def test_a_connection_made_between_the_wait_and_the_gateway_is_answered(tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    settings = Settings(components=("gateway",), data_dir=tmp_path, port=port)
    web = HeldServer(port)

    async def serve(waiting: Waiting) -> None:
        async with taking_over(waiting, [], web, StopRequest(), {}):
            pass

    async with Waiting(settings, setup_telemetry(settings, "gateway"), port) as waiting:
        await waiting.until_next_attempt(UnavailableError("an append", "NATS does not answer"))
        serving = asyncio.create_task(serve(waiting))
        await web.begun.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        web.go_on.set()
        assert (await reader.read()).endswith(b"it serves")
        writer.close()
        await serving


async def answer(port: int) -> str:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        return (await http.get("/version")).text
