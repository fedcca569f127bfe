"""What a hostile client sends: too many connections, endless heads, bodies that never come. The server goes on."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import psutil
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from runstream.open_files import OPEN_FILES, connections_within, raise_open_files
from runstream.telemetry.http_server import HttpLimits, HttpServer
from tests.service.running import a_run, serving

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
MIB = b"a" * (1 << 20)
CHUNKED = b"POST /size HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


async def _hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


async def _size(request: Request) -> Response:
    try:
        return PlainTextResponse(str(len(await request.body())))
    except ClientDisconnect:
        return PlainTextResponse("gone")


@asynccontextmanager
async def server(**limits: float) -> AsyncIterator[HttpServer]:
    """An HTTP server with these limits."""
    app = Starlette(routes=[Route("/", _hello, methods=["GET", "POST"]), Route("/size", _size, methods=["POST"])])
    http = HttpServer(app, limits=HttpLimits(**limits))  # type: ignore[arg-type]
    await http.start()
    try:
        yield http
    finally:
        await http.stop()


async def say(port: int, chunks: Iterable[bytes]) -> bytes:
    """What the server answers until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for chunk in chunks:
            writer.write(chunk)
            try:
                await writer.drain()
            except ConnectionError:
                break
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("chunks", "status", "code"),
    [
        pytest.param([b"GET / HTTP/1.1\r\nX: ", *[MIB] * 100], 431, "headersTooLarge", id="one header of 100 MiB"),
        pytest.param(
            [b"GET / HTTP/1.1\r\n", *[b"a: b\r\n" * 10_000] * 200],
            431,
            "headersTooLarge",
            id="two million header lines",
        ),
        pytest.param([b"GET /", *[MIB] * 10], 431, "headersTooLarge", id="an endless path"),
        pytest.param([CHUNKED + b"1;", *[MIB] * 10], 431, "headersTooLarge", id="extension"),
        pytest.param([CHUNKED + b"0\r\nX: ", *[MIB] * 10], 431, "headersTooLarge", id="trailer"),
        pytest.param([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 400, "malformedRequest", id="TLS"),
        pytest.param(
            [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 500],
            400,
            "tooManyRequests",
            id="requests without reading answers",
        ),
    ],
)
async def test_what_is_no_request_within_bounds_is_refused_at_once(chunks: list[bytes], status: int, code: str) -> None:
    async with server() as http:
        answer = await say(http.port, chunks)
        assert b"HTTP/1.1 %d " % status in answer[:20]
        assert f'"code":"{code}"'.encode() in answer.replace(b": ", b":")
        assert b'"hint"' in answer
        assert await say(http.port, [GET]) != b""


async def test_the_last_head_that_fits_is_taken() -> None:
    async with server() as http:
        head = b"GET / HTTP/1.1\r\nConnection: close\r\nX: "
        rest = b"\r\n\r\n"
        fits = b"a" * ((64 << 10) - len(head) - len(rest) - 1)
        assert b" 200 OK" in await say(http.port, [head, fits, rest])
        assert b" 431 " in await say(http.port, [head, fits + b"aa", rest])


async def test_the_last_header_line_that_fits_is_taken() -> None:
    async with server() as http:
        for method in ("GET", "POST"):  # by default, and where a body follows
            head = f"{method} / HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n".encode()
            assert b" 200 OK" in await say(http.port, [head, b"a: b\r\n" * 254, b"\r\n"])
            refused = await say(http.port, [head, b"a: b\r\n" * 255, b"\r\n"])
            assert b" 431 " in refused
            assert b"the request's headers have more than 256 lines" in refused


async def test_a_head_that_does_not_end_and_a_body_that_does_not_come_end_at_a_deadline() -> None:
    async with server(head_seconds=0.1, body_seconds=0.1, linger_seconds=0.1) as http:
        assert b" 408 " in await say(http.port, [b"GET / HTTP/1.1\r\nHost:"])
        assert await say(http.port, []) == b""
        assert b" 408 " in await say(http.port, [b"POST /size HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"])
        unread = await say(http.port, [b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"])
        assert b" 200 OK" in unread  # and the connection ends although the body never came
        assert b" 200 OK" in await say(http.port, [GET])


async def test_a_body_that_comes_late_does_not_cost_the_connection() -> None:
    async with server() as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n")
        assert await reader.readuntil(b"hello")
        writer.write(b"abc" + GET)
        assert b" 200 OK" in await reader.read()
        writer.close()


async def test_connections_over_the_limit_are_refused_and_the_rest_is_served() -> None:
    async with server(connections=20) as http:
        idle = [await asyncio.open_connection("127.0.0.1", http.port) for _ in range(20)]
        assert b" 503 " in await say(http.port, [GET])
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(10):
            while b" 200 OK" not in await say(http.port, [GET]):
                continue


def test_the_limit_of_open_files_is_raised_as_far_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        raise_open_files()
        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == (OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_leave_half_of_the_open_files_to_the_rest() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert connections_within(1) == 1
    for wanted, most in ((1, 1), (soft // 2, soft // 2), (soft, soft // 2), (1 << 30, soft // 2)):
        assert HttpServer(Starlette(), limits=HttpLimits(connections=wanted)).limits.connections == most


@pytest.mark.seconds(120)
async def test_a_service_out_of_open_files_goes_on_when_there_are_some_again_and_stops_without_them(
    open_path: Path,
) -> None:
    data_dir = open_path / "data"
    async with (
        serving(data_dir, "--partitions", "2", RUNSTREAM_MAX_CONNECTIONS="4000") as service,
        httpx2.AsyncClient(base_url=service.url) as client,
    ):
        token = json.loads((data_dir / "service.json").read_text())["token"]
        client.headers["Authorization"] = f"token {token}"
        process = psutil.Process(service.process.pid)
        soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        assert soft == min(hard, 65_536)
        await a_run(data_dir)
        await client.get("/readyz")  # its connection stays open
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 2, hard))
        port = int(service.url.rpartition(":")[2])
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        while "too many open files" not in (await client.get("/api/v1alpha/executors")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # sleeps: nothing tells a client; by then leases were renewed, too
        assert service.process.returncode is None
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        for _, writer in held:
            writer.close()
        await a_run(data_dir)
        assert (await client.get("/readyz")).status_code == 200
        async with client.stream("GET", "/api/v1alpha/events"):  # open while the gateway closes
            service.look_again()
            process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), hard))
            service.signal(signal.SIGTERM)
            assert await service.ended() == 0
