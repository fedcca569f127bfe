"""However a server ends, it leaves no task, no connection and no socket behind, and its port is free."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from runstream.telemetry.http_server import BoundedHttp, HttpServer


def sockets() -> set[str]:
    """The sockets that this process has open."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except FileNotFoundError:  # the descriptor of this listing
            continue
    return {name for name in found if name.startswith("socket:")}


@pytest.mark.parametrize("end", ["a lost background task", "cancellation"])
async def test_a_server_that_is_broken_off_leaves_nothing(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def hang(_: Request) -> Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def answer(_: Request) -> Response:
        return PlainTextResponse("it serves")

    app = Starlette(routes=[Route("/hang", hang), Route("/answer", answer)])
    tasks, before = asyncio.all_tasks(), sockets()
    server = HttpServer(app)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
    await asked.wait()
    if end == "cancellation":
        server.stop_seconds = 0
        await server.stop()
    else:

        def fail(_connection: BoundedHttp, _now: float) -> None:
            raise ValueError("it broke")

        with monkeypatch.context() as patch:
            patch.setattr(BoundedHttp, "check", fail)
            with pytest.raises(ExceptionGroup) as caught:
                await server.wait()
        assert caught.group_contains(ValueError, match="it broke")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert sockets() == before
    successor = HttpServer(app, port=server.port)
    await successor.start()
    async with httpx2.AsyncClient() as client:
        assert (await client.get(f"{successor.url}/answer")).text == "it serves"
    await successor.stop()
