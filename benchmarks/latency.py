"""(d) From POST /runs to finished on an idle system: the wait that the system adds to the work itself."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

from benchmarks.figures import Figure, Figures, percentile
from benchmarks.machine import bare_runs_per_second, bare_seconds
from benchmarks.standing import Deployment
from benchmarks.throughput import append, load
from benchmarks.usage import add_cpu, cpu_seconds
from benchmarks.watching import FINISH_SECONDS, end_of
from benchmarks.workloads import CHAIN, ONE, SHELL, Workload
from runstream.client import Client, NewRun
from runstream.gateway.runs.create import RunCreation
from runstream.log.jetstream import JetStreamLog

SAMPLES = 50
AIMS = {ONE.name: 20.0, CHAIN.name: 50.0}
SHELL_OVER_BARE_MS = 25.0
SHELL_RUNS = 400
SHELL_RATE = 139.0
SHELL_AT_ONCE = 8
_RATE = f"{SHELL.name}, {SHELL_AT_ONCE} at once"
SANDBOX_OVER_NONE_MS = 4.0
"""Milliseconds that a sandbox may add to an idle shell run."""
SANDBOX_RATE_RATIO = 110 / 139
"""The rate of shell runs in a sandbox, as a share of the rate without one."""


async def measure_noop(deployment: Deployment, log: JetStreamLog, figures: Figures, repetitions: int) -> None:
    """Tasks that do nothing."""
    for workload in (ONE, CHAIN):
        samples = [await _samples(deployment, log, workload) for _ in range(repetitions)]
        _add(figures, workload.name, samples, AIMS[workload.name])


async def measure_shell(deployment: Deployment, log: JetStreamLog, figures: Figures, repetitions: int) -> None:
    """Two shell steps, beside the same commands run by a bare loop in turn with them."""
    bare: list[list[float]] = []
    ours: list[list[float]] = []
    for _ in range(repetitions):
        bare.append([seconds * 1000 for seconds in await bare_seconds(SAMPLES)])
        ours.append(await _samples(deployment, log, SHELL))
    alone = figures.add("d", "the two commands, bare: p50", "ms", [percentile(b, 50) for b in bare], limit=True)
    _add(figures, SHELL.name, ours, alone.median + SHELL_OVER_BARE_MS)
    alone_rates = [await bare_runs_per_second(SHELL_RUNS, SHELL_AT_ONCE) for _ in range(repetitions)]
    await _shell_rate(log)
    before = cpu_seconds(deployment)
    rates = [await _shell_rate(log) for _ in range(repetitions)]
    after = cpu_seconds(deployment)
    figures.add("d", f"the two commands, bare, {SHELL_AT_ONCE} at once", "runs/s", alone_rates, limit=True)
    figures.add("d", _RATE, "runs/s", rates, aim=SHELL_RATE)
    add_cpu(figures, "d", SHELL.name, before, after, SHELL_RUNS * repetitions)


async def measure_sandbox(
    deployment: Deployment,
    log: JetStreamLog,
    without: Deployment,
    log_without: JetStreamLog,
    figures: Figures,
    repetitions: int,
) -> None:
    """The same, each task in a sandbox of its own, as executors do it by default; beside them, by turns, the same runs
    by a service without sandboxes."""
    name = f"{SHELL.name}, in a sandbox"
    pairs = [await _by_turns((deployment, without), (log, log_without), SHELL) for _ in range(repetitions)]
    _add(figures, name, [inside for inside, _ in pairs])
    await _shell_rate(log)
    before = cpu_seconds(deployment)
    rates = [await _shell_rate(log) for _ in range(repetitions)]
    after = cpu_seconds(deployment)
    rate = figures.add("d", f"{name}, {SHELL_AT_ONCE} at once", "runs/s", rates)
    add_cpu(figures, "d", name, before, after, SHELL_RUNS * repetitions)
    add_sandbox_cost(figures, pairs, rate)


def add_sandbox_cost(figures: Figures, pairs: list[tuple[list[float], list[float]]], rate: Figure) -> None:
    """Compare shell runs in a sandbox with those without one: the latency by turns, so that both meet the same load of
    the machine, the rate with the one measured before."""
    rate_without = figures.find(_RATE)
    figures.add(
        "d",
        "a sandbox adds to idle two shell steps: p50",
        "ms",
        [percentile(inside, 50) - percentile(outside, 50) for inside, outside in pairs],
        aim=SANDBOX_OVER_NONE_MS,
        better="less",
    )
    figures.add(
        "d",
        "two shell steps, rate in a sandbox, of that without",
        "%",
        [100 * inside / outside for inside, outside in zip(rate.values, rate_without.values, strict=True)],
        aim=100 * SANDBOX_RATE_RATIO,
    )


async def _shell_rate(log: JetStreamLog) -> float:
    creation = RunCreation(log, lambda: datetime.now(UTC))
    return await load(log, append(creation, SHELL), SHELL_RUNS, SHELL_RUNS)


def _add(figures: Figures, name: str, samples: list[list[float]], aim: float | None = None) -> Figure:
    """Return the figure of the medians."""
    p50 = figures.add("d", f"{name}: p50", "ms", [percentile(s, 50) for s in samples], aim=aim, better="less")
    figures.add("d", f"{name}: p99", "ms", [percentile(s, 99) for s in samples], better="less")
    return p50


async def _by_turns(
    deployments: tuple[Deployment, Deployment], logs: tuple[JetStreamLog, JetStreamLog], workload: Workload
) -> tuple[list[float], list[float]]:
    """Return the samples of each service, taken in turn."""
    (first, second), (log, other) = deployments, logs
    async with sampling(first, log, workload) as one, sampling(second, other, workload) as another:
        pairs = [(await one(), await another()) for _ in range(SAMPLES)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


async def _samples(deployment: Deployment, log: JetStreamLog, workload: Workload) -> list[float]:
    """Milliseconds from the request until the event stream says that the run has finished, one run after the other."""
    async with sampling(deployment, log, workload) as one:
        return [await one() for _ in range(SAMPLES)]


@contextlib.asynccontextmanager
async def sampling(
    deployment: Deployment, log: JetStreamLog, workload: Workload
) -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """Yield a function that runs the workload once and returns the milliseconds that it took."""
    place = str(await end_of(log))
    numbers = itertools.count()
    async with (
        Client(deployment.url, token=deployment.token) as client,
        contextlib.aclosing(client.events.tail(place)) as commits,
    ):

        async def one() -> float:
            begun = time.perf_counter()
            run = await client.runs.create(NewRun(workload.group(next(numbers)), workload.name, workload.tasks()))
            async with asyncio.timeout(FINISH_SECONDS):
                async for commit in commits:
                    ends = any(event.type == "RunFinished" for event in commit.events)
                    if ends and commit.aggregate == f"run/{run.id}":
                        break
            return (time.perf_counter() - begun) * 1000

        await one()  # opens the connections
        yield one
