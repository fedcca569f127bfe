"""Tasks in containers that end while the executor has no free file descriptor: nothing of them is left."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import httpcore2
import pytest
from aiohttp.client_exceptions import UnixClientConnectorError

from runstream.backoff import Backoff
from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStopRequested
from runstream.events.run_config import Runtime
from runstream.executor.drivers.docker import driver as docker
from runstream.executor.drivers.kubernetes import cluster
from runstream.executor.drivers.kubernetes import driver as kubernetes
from tests.docker_engine import IMAGE, DockerEngine, needs_engine
from tests.executor.rig import CONTAINERS, SETTINGS, Rig, container, pod, rig, run_step, task_of
from tests.executor.test_kubernetes import gone
from tests.kubernetes_api import KubernetesApi, started

ENDED = {ExecutorTaskPhase.STOPPED, ExecutorTaskPhase.FAILED}
ENDLESS = run_step("while :; do sleep 0.05; done")


class Connections:
    """New connections, which this process cannot open while they are refused; it keeps no idle one."""

    def __init__(self) -> None:
        self.refused = False
        self.tried = 0

    def watched(self, connect: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.tried += self.refused
            if self.refused:
                raise self.error(*args)
            return await connect(*args, **kwargs)

        return call

    def error(self, *args: Any) -> Exception:
        refusal = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if args and isinstance(args[0], aiohttp.UnixConnector):
            return UnixClientConnectorError(args[0].path, args[1].connection_key, refusal)
        return refusal


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    """The connections to an engine or a cluster, and removals that are tried again soon."""

    async def none_idle(*_: object) -> None: ...

    pool = httpcore2.AsyncConnectionPool.__init__

    def without_idle(*args: Any, **kwargs: Any) -> None:
        pool(*args, **{**kwargs, "max_keepalive_connections": 0})

    found = Connections()
    monkeypatch.setattr(httpcore2.AsyncConnectionPool, "__init__", without_idle)
    monkeypatch.setattr(aiohttp.connector.BaseConnector, "_get", none_idle)
    create = aiohttp.UnixConnector._create_connection  # noqa: SLF001
    monkeypatch.setattr(aiohttp.UnixConnector, "_create_connection", found.watched(create))
    monkeypatch.setattr(anyio, "connect_tcp", found.watched(anyio.connect_tcp))
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.0)
    for driver in (docker, kubernetes):
        monkeypatch.setattr(driver, "REMOVAL", Backoff(0.05))
    return found


async def end_without(it: Rig, connections: Connections, runtime: Runtime) -> None:
    """Stop a running task, and give its executor no new connection before the task has ended in the log."""
    watched = await it.assign(task_of("task", ENDLESS, runtime=runtime))
    await watched.step_begun()
    connections.refused = True
    await watched.say(ExecutorTaskStopRequested())
    assert (await watched.settled()).phase in ENDED
    assert connections.tried
    connections.refused = False


@needs_engine
async def test_the_containers_of_a_task_that_ended_without_descriptors_are_removed(
    tmp_path: Path, docker_engine: DockerEngine, connections: Connections
) -> None:
    settings = replace(SETTINGS, engine=docker_engine.url, stop_grace_seconds=0.2, **CONTAINERS)
    async with rig(tmp_path, settings=settings) as it:
        await end_without(it, connections, pod(IMAGE, container(IMAGE, entrypoint="sleep 600")))
        while docker_engine.containers(executorid=it.executor_id):
            await asyncio.to_thread(docker_engine.cli, "version")


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesApi]:
    """An API server, which the client finds by its configuration."""
    async with started(tmp_path / "cluster") as found:
        monkeypatch.setenv("KUBECONFIG", str(found.write_config()))
        yield found


async def test_the_pod_of_a_task_that_ended_without_descriptors_is_removed(
    tmp_path: Path, api: KubernetesApi, connections: Connections
) -> None:
    settings = replace(SETTINGS, engine="kubernetes://", stop_grace_seconds=0.2, allow_host=False)
    async with rig(tmp_path, settings=settings) as it:
        await end_without(it, connections, pod(IMAGE))
        await gone(api)
