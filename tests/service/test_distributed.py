"""The same command, one process for each part: servers of their own, and objects that they share."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from pathlib import Path

from tests.servers import Servers
from tests.service.running import Service, a_run, runstream, serving


async def test_a_gateway_a_scheduler_and_an_executor(tmp_path: Path, servers: Servers) -> None:
    shared = {
        "RUNSTREAM_NATS_URL": servers.nats_url,
        "RUNSTREAM_DATABASE_URL": servers.database_url,
        "RUNSTREAM_NAMESPACE": servers.namespace,
        "RUNSTREAM_DATABASE_SCHEMA": servers.schema,
        "RUNSTREAM_OBJECTS_DIR": str(tmp_path / "objects"),
    }
    async with contextlib.AsyncExitStack() as stack:
        services: list[Service] = []
        for component in ("gateway", "scheduler", "executor"):
            started = serving(tmp_path / component, "--components", component, **shared)
            services.append(await stack.enter_async_context(started))
        run = await a_run(tmp_path / "gateway")
        code, out, _ = await runstream("--data-dir", str(tmp_path / "gateway"), "log", "get", run, "one")
        assert (code, out.split()) == (0, ["hello"])
        for service in services:
            assert ready(service) == "ready"
        assert b"runstream_" in get(f"{services[1].url}/metrics")
        code, out, _ = await runstream("--data-dir", str(tmp_path / "gateway"), "fsck", **shared)
        assert code == 0, out
        for service in reversed(services):
            service.process.terminate()
            assert await service.ended() == 0


def ready(service: Service) -> str:
    status: str = json.loads(get(f"{service.url}/readyz"))["status"]
    return status


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own service
        content: bytes = answer.read()
        return content
