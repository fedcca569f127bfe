"""In maintenance the API serves health and maintenance alone; open requests finish, and streams are ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from runstream.errors import InternalError
from runstream.gateway.middleware import Admission, MaintenanceGate
from runstream.gateway.routes.runs import in_maintenance
from runstream.gateway.streaming import LiveResponse, SendBytes
from runstream.telemetry.http_server import HttpServer


class NotedGate(MaintenanceGate):
    """Says when it is closed."""

    def __init__(self, why: Callable[[], str]) -> None:
        super().__init__(why)
        self.closed = asyncio.Event()

    def close(self) -> None:
        super().close()
        self.closed.set()


class House:
    """An application behind a gate."""

    def __init__(self) -> None:
        self.gate = NotedGate(lambda: " since noon: painting")
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.caught: list[BaseException] = []

    def app(self) -> ASGIApp:
        routes = [
            Route("/slow", self.slow),
            Route("/stream", self.stream),
            Route("/upload", self.upload, methods=["POST"]),
            Route("/healthz", self.fine),
            Route("/api/v1alpha/maintenance/runs", self.fine),
            Route("/api/v1alpha/maintenances", self.fine),
        ]
        return self.catching(self.gate.around(Starlette(routes=routes)))

    def catching(self, app: ASGIApp) -> ASGIApp:
        """As the edge does."""

        async def caught(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except InternalError as error:
                self.caught.append(error)
                await PlainTextResponse(error.message, 503)(scope, receive, send)

        return caught

    async def fine(self, _request: Request) -> Response:
        return PlainTextResponse("fine")

    async def slow(self, _request: Request) -> Response:
        self.entered.set()
        await self.leave.wait()
        return PlainTextResponse("done")

    async def upload(self, request: Request) -> Response:
        self.entered.set()
        return PlainTextResponse(str(len(await request.body())))

    async def stream(self, _request: Request) -> Response:
        async def write(send: SendBytes) -> None:
            await send(b"first")
            self.entered.set()
            await asyncio.Event().wait()

        return LiveResponse(write, media_type="text/plain", headers={}, stopping=asyncio.Event())

    def http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self.app()), base_url="http://gateway")


async def test_what_is_answered_while_it_is_closed() -> None:
    house = House()
    async with house.http() as http:
        refused = await http.get("/slow")
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        (told,) = refused.json()
        assert told["code"] == "maintenance"
        assert told["message"] == "the service is in maintenance since noon: painting"
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/api/v1alpha/maintenance/runs")).status_code == 200
        assert (await http.get("/api/v1alpha/maintenances")).status_code == 503
        house.gate.open()
        assert (await http.get("/api/v1alpha/maintenances")).status_code == 200


async def test_why_a_run_waits_is_answered_at_the_gate() -> None:
    gate = MaintenanceGate(lambda: " since noon: painting", in_maintenance)
    app = gate.around(Starlette())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://gateway") as http:
        told = (await http.get("/api/v1alpha/runs/some-run/why")).json()
        assert (told["run"], told["reasons"][0]["code"]) == ("some-run", "maintenance")
        message = "the service is in maintenance since noon: painting: nothing is decided"
        assert told["reasons"][0]["message"] == message
        assert (await http.delete("/api/v1alpha/runs/some-run/why")).status_code == 503
        assert (await http.get("/api/v1alpha/runs/some-run")).status_code == 503


async def test_a_request_inside_ends_and_a_stream_is_aborted() -> None:
    house = House()
    house.gate.open()
    server = HttpServer(house.app())
    await server.start()
    async with httpx2.AsyncClient(base_url=server.url) as http:
        slow = asyncio.create_task(http.get("/slow"))
        await house.entered.wait()
        house.entered.clear()
        stream = asyncio.create_task(http.get("/stream"))
        await house.entered.wait()
        admission = Admission(house.gate)
        await admission.start()
        draining = asyncio.create_task(admission.drain(None))
        with pytest.raises(httpx2.RemoteProtocolError, match="incomplete"):
            await stream
        assert admission.under_way == 1
        assert not draining.done()
        house.leave.set()
        await draining
        assert (await slow).text == "done"
        assert (await http.get("/slow")).status_code == 503
        await admission.stop()
    await server.stop()


async def test_a_drain_that_is_given_up_opens_again() -> None:
    house = House()
    async with house.http() as http:
        admission = Admission(house.gate)
        await admission.start()
        slow = asyncio.create_task(http.get("/slow"))
        await house.entered.wait()
        draining = asyncio.create_task(admission.drain(None))
        await house.gate.closed.wait()
        assert (await http.get("/slow")).status_code == 503
        draining.cancel()
        await asyncio.wait({draining})
        house.leave.set()
        assert (await slow).status_code == 200
        assert (await http.get("/slow")).status_code == 200
        await admission.stop()


@pytest.mark.parametrize("closed_before", [True, False])
async def test_a_body_that_never_arrives_does_not_delay_maintenance(closed_before: bool) -> None:
    house = House()
    house.gate.open()
    server = HttpServer(house.app())
    await server.start()

    async def body() -> AsyncIterator[bytes]:
        yield b"begin"
        await house.entered.wait()
        house.gate.close()
        await asyncio.Event().wait()

    async with httpx2.AsyncClient() as http:
        if closed_before:
            house.gate.close()
            assert (await http.post(f"{server.url}/upload", content=b"x")).status_code == 503
        else:
            upload = asyncio.create_task(http.post(f"{server.url}/upload", content=body()))
            await house.entered.wait()
            await house.gate.empty()
            assert len(house.caught) == 1
            upload.cancel()
            await asyncio.wait({upload})
    await server.stop()
