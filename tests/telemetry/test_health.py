"""A process serves its metrics, its liveness and its readiness, until it ends."""

import asyncio
import socket
import threading
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from runstream.errors import ConflictError, InternalError
from runstream.settings import Settings
from runstream.telemetry import span_from
from runstream.telemetry.health import HealthServer, check_all, health_app
from runstream.telemetry.http_server import HttpServer
from runstream.telemetry.metrics import APPEND_CONFLICTS, APPEND_DURATION, PROJECTION_LAG_COMMITS
from runstream.telemetry.process import setup_telemetry

PARTITION = "4711"
"""One that no other test of this process counts anything of: metrics are of the whole process."""


async def _ready() -> None:
    return None


async def _not_ready() -> None:
    raise InternalError("cannot reach postgresql://u:hunter22@db/x")


async def test_metrics_healthz_and_readyz(tmp_path: Path) -> None:
    telemetry = setup_telemetry(Settings(data_dir=tmp_path), "scheduler")
    APPEND_CONFLICTS.add(3, PARTITION)
    APPEND_DURATION.record(0.002, PARTITION)
    PROJECTION_LAG_COMMITS.set(7, "runs", PARTITION)
    server = HealthServer(telemetry, {"nats": _ready})
    await server.start()
    async with httpx2.AsyncClient(base_url=server.url) as client:
        metrics = (await client.get("/metrics")).text
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).json() == {"status": "ready", "checks": {"nats": "ok"}}
    await server.stop()
    await server.stop()
    assert f'runstream_append_conflicts_total{{partition="{PARTITION}"}} 3.0' in metrics
    assert f'runstream_append_duration_seconds_bucket{{le="0.002",partition="{PARTITION}"}} 1.0' in metrics
    assert f'runstream_projection_lag_commits{{partition="{PARTITION}",projection="runs"}} 7.0' in metrics
    PROJECTION_LAG_COMMITS.forget("runs", PARTITION)
    assert f'runstream_projection_lag_commits{{partition="{PARTITION}"' not in telemetry.prometheus().decode()
    assert await telemetry.shutdown()
    assert await telemetry.shutdown()


async def test_readyz_names_what_is_not_ready(tmp_path: Path) -> None:
    telemetry = setup_telemetry(Settings(data_dir=tmp_path), "gateway")
    app = health_app(telemetry, {"nats": _ready, "database": _not_ready})
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test") as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"nats": "ok", "database": "cannot reach postgresql://u:[hidden]@db/x"}
    await telemetry.shutdown()


async def test_a_check_that_never_answers_is_not_waited_for() -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    assert await check_all({"log": hangs}, seconds=0.01) == {"log": "no answer within 0.01 s"}


async def test_a_check_whose_wait_is_cancelled_by_a_library_has_failed_and_the_others_are_answered() -> None:
    async def cut() -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(waiter.cancel)
        await waiter

    answers = await check_all({"log": cut, "nats": _ready})
    assert answers["nats"] == "ok"
    assert "what it waited for was cancelled" in answers["log"]


async def test_a_port_in_use_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = HttpServer(Starlette(), port=taken.getsockname()[1])
        with pytest.raises(ConflictError, match="cannot listen on 127"):
            await server.start()


async def test_an_answer_that_is_broken_off_is_no_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """The application broke it off on purpose, and has said why."""

    async def break_off(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    server = HttpServer(break_off)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await server.stop()
    assert answer.endswith(b"\r\n\r\nhalf")
    assert [record.message for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_an_endpoint_that_does_not_answer_does_not_hold_the_process(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        telemetry = setup_telemetry(Settings(data_dir=tmp_path, otlp_endpoint=endpoint), "executor")
        with span_from("", "request"):
            pass  # what it cannot send
        assert await telemetry.shutdown(seconds=0.05) is False
    for thread in threading.enumerate():
        if thread.name == "telemetry-shutdown":
            await asyncio.to_thread(thread.join, 20)  # the socket is closed now: it ends by itself


async def test_traces_and_metrics_are_sent_where_an_endpoint_is_configured(tmp_path: Path) -> None:
    received: list[str] = []

    async def sink(request: Request) -> Response:
        received.append(request.url.path)
        return Response(await request.body() and b"")

    server = HttpServer(Starlette(routes=[Route("/v1/{kind}", sink, methods=["POST"])]))
    await server.start()
    telemetry = setup_telemetry(Settings(data_dir=tmp_path, otlp_endpoint=server.url), "gateway")
    APPEND_CONFLICTS.add(1, "runs")
    with span_from("", "request"):
        pass
    assert await telemetry.shutdown(seconds=10)
    await server.stop()
    assert set(received) == {"/v1/traces", "/v1/metrics"}
