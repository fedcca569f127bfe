"""(c) Runs a second, from publishing to finished: through the append port, and over HTTP. (e) The memory it took."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import msgspec

from benchmarks.figures import Figures
from benchmarks.http import Connection, connections
from benchmarks.standing import Deployment
from benchmarks.usage import add_cpu, cpu_seconds
from benchmarks.watching import Watch, watching
from benchmarks.workloads import CHAIN, ONE, Workload
from runstream.gateway.runs.create import RunCreation
from runstream.log.jetstream import JetStreamLog

AIMS = {ONE.name: 700.0, CHAIN.name: 280.0}
RUNS = {ONE.name: 2000, CHAIN.name: 700}
PUBLISHING = 200
"""How many runs are being published at once through the append port."""
CONNECTIONS = 128

Publish = Callable[[int], Awaitable[str]]
"""Publishes the run of a number; its id."""


async def measure(deployment: Deployment, log: JetStreamLog, figures: Figures, repetitions: int) -> None:
    """A gateway, a scheduler and an executor that does nothing, each a process of its own."""
    creation = RunCreation(log, lambda: datetime.now(UTC))
    for workload in (ONE, CHAIN):
        publish, runs = append(creation, workload), RUNS[workload.name]
        await load(log, publish, PUBLISHING, runs // 10)
        before = cpu_seconds(deployment)
        rates = [await load(log, publish, PUBLISHING, runs) for _ in range(repetitions)]
        after = cpu_seconds(deployment)
        figures.add("c", f"{workload.name}, by the append port", "runs/s", rates, aim=AIMS[workload.name])
        add_cpu(figures, "c", workload.name, before, after, runs * repetitions)
        rates = [await _load_by_http(deployment, log, workload, runs) for _ in range(repetitions)]
        figures.add("c", f"{workload.name}, by HTTP", "runs/s", rates)


async def _load_by_http(deployment: Deployment, log: JetStreamLog, workload: Workload, runs: int) -> float:
    async with connections(deployment.url, deployment.token, CONNECTIONS) as idle:
        return await load(log, post(idle, workload), CONNECTIONS, runs)


async def load(log: JetStreamLog, publish: Publish, at_once: int, runs: int) -> float:
    """Publish that many runs, so many at once; how many a second were published and finished."""
    return await load_watched(watching(log), publish, at_once, runs)


async def load_watched(
    watching: AbstractAsyncContextManager[Watch], publish: Publish, at_once: int, runs: int
) -> float:
    """Publish that many runs where something else than our log says what has finished; return runs a second."""
    numbers = iter(range(runs))
    ids: list[str] = []

    async def work() -> None:
        ids.extend([await publish(number) for number in numbers])

    async with watching as watch:
        begun = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(at_once)))
        await watch.until(ids)
        return runs / (max(watch.finished.values()) - begun)


def append(creation: RunCreation, workload: Workload) -> Publish:
    """Publish as the gateway does, in this process."""

    async def publish(number: int) -> str:
        return (await creation.create(workload.new(number))).run.id

    return publish


def post(idle: list[Connection], workload: Workload) -> Publish:
    """Publish by POST /runs, over one of these connections."""
    free = deque(idle)

    async def publish(number: int) -> str:
        connection = free.popleft()
        answer = await connection.create_run(workload.body(number))
        free.append(connection)
        return msgspec.json.decode(answer, type=_Answer).run.id

    return publish


class _Run(msgspec.Struct):
    id: str


class _Answer(msgspec.Struct):
    run: _Run
