"""(d) From POST /runs to finished on an idle system: the wait that the system adds to the work itself."""

from __future__ import annotations

import asyncio
import time
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


async def measure_sandbox(deployment: Deployment, log: JetStreamLog, figures: Figures, repetitions: int) -> None:
    """The same, each task in a sandbox of its own, as executors do it by default."""
    name = f"{SHELL.name}, in a sandbox"
    samples = [await _samples(deployment, log, SHELL) for _ in range(repetitions)]
    idle = _add(figures, name, samples)
    await _shell_rate(log)
    before = cpu_seconds(deployment)
    rates = [await _shell_rate(log) for _ in range(repetitions)]
    after = cpu_seconds(deployment)
    rate = figures.add("d", f"{name}, {SHELL_AT_ONCE} at once", "runs/s", rates)
    add_cpu(figures, "d", name, before, after, SHELL_RUNS * repetitions)
    add_sandbox_cost(figures, idle, rate)


def add_sandbox_cost(figures: Figures, idle: Figure, rate: Figure) -> None:
    """Compare shell runs in a sandbox with those without one that were measured before, repetition by repetition."""
    idle_without, rate_without = figures.find(f"{SHELL.name}: p50"), figures.find(_RATE)
    figures.add(
        "d",
        "a sandbox adds to idle two shell steps: p50",
        "ms",
        [inside - outside for inside, outside in zip(idle.values, idle_without.values, strict=True)],
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


async def _samples(deployment: Deployment, log: JetStreamLog, workload: Workload) -> list[float]:
    """Milliseconds from the request until the event stream says that the run has finished, one run after the other."""
    place = str(await end_of(log))
    passed: list[float] = []
    async with Client(deployment.url, token=deployment.token) as client:

        async def publish() -> tuple[str, float]:
            begun = time.perf_counter()
            group, tasks = workload.group(len(passed)), workload.tasks()
            run = await client.runs.create(NewRun(group, workload.name, tasks))
            return f"run/{run.id}", begun

        waited_for, begun = await publish()
        async with asyncio.timeout(FINISH_SECONDS):
            async for commit in client.events.tail(place):
                if commit.aggregate == waited_for and any(event.type == "RunFinished" for event in commit.events):
                    passed.append((time.perf_counter() - begun) * 1000)
                    if len(passed) > SAMPLES:
                        break
                    waited_for, begun = await publish()
    return passed[1:]  # the first one opened the connections
