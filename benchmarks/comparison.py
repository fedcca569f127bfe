"""(h) The cost of a run, compared with the bare program that makes the same commits (`benchmarks.bare`).

Both run in the same minutes over the same servers, turn by turn, and are compared by CPU time: a machine that is busy
with other work halves the rates of both, and moves the ratio much less.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psutil

from benchmarks import bare
from benchmarks.figures import Figures
from benchmarks.standing import Deployment, Servers
from benchmarks.throughput import PUBLISHING, Publish, append, load_watched
from benchmarks.usage import Processes, cpu_of_a_run, cpu_seconds
from benchmarks.watching import Watch, end_of, watching
from benchmarks.workloads import CHAIN, ONE, Workload
from runstream.gateway.runs.create import RunCreation
from runstream.log.jetstream import JetStreamLog

AIM = 2.2
"""Maximum CPU time of a run, as a multiple of the bare program's."""
RUNS = {ONE.name: 1500, CHAIN.name: 500}
_OPTIONS: dict[str, tuple[str, ...]] = {
    "scheduler": (),
    "executor": ("--driver", "noop", "--active-tasks-limit", "0"),
}


@dataclass(slots=True)
class BareProcesses:
    """The bare program's processes, and the servers."""

    servers: Servers
    processes: dict[str, Process] = field(default_factory=dict)

    def families(self) -> dict[str, list[psutil.Process]]:
        """Return every process, by the part that it belongs to."""
        found = {part: [psutil.Process(process.pid)] for part, process in self.processes.items()}
        return found | self.servers.families()


@dataclass(slots=True)
class Side:
    """One of the two that are compared, and what its runs have cost so far, a value for each repetition."""

    processes: Processes
    publish: Callable[[Workload], Publish]
    watching: Callable[[], AbstractAsyncContextManager[Watch]]
    commits: Callable[[], Awaitable[int]]
    """How many commits its log has."""
    rates: list[float] = field(default_factory=list)
    each: list[dict[str, float]] = field(default_factory=list)
    """Milliseconds of CPU time of a run, by process."""

    async def warm_up(self, workload: Workload) -> None:
        """Let everything be loaded, and the run config be stored."""
        self.rates, self.each = [], []
        await load_watched(self.watching(), self.publish(workload), PUBLISHING, RUNS[workload.name] // 10)

    async def measure(self, workload: Workload) -> float:
        """Measure once more; how many commits a run made."""
        runs, commits, before = RUNS[workload.name], await self.commits(), cpu_seconds(self.processes)
        self.rates.append(await load_watched(self.watching(), self.publish(workload), PUBLISHING, runs))
        self.each.append(cpu_of_a_run(before, cpu_seconds(self.processes), runs))
        return (await self.commits() - commits) / runs

    def totals(self, *processes: str) -> list[float]:
        """Milliseconds of CPU time that a run took in these processes, in all of them when none is named."""
        return [sum(each[process] for process in processes or each) for each in self.each]

    def median(self, process: str) -> float:
        """Milliseconds of CPU time that a run took in this process."""
        return statistics.median(each.get(process, 0.0) for each in self.each)


async def measure(servers: Servers, figures: Figures, repetitions: int, profiled: str = "") -> None:
    """Measure both, turn by turn. Raises RuntimeError when they do not make the same number of commits."""
    deployment = Deployment(servers, "compared", profiled=profiled)
    async with servers.log("compared") as log, deployment.running(**_OPTIONS), _bare(servers) as other:
        ours = _ours(deployment, log)
        for workload in (ONE, CHAIN):
            await ours.warm_up(workload)
            await other.warm_up(workload)
            for _ in range(repetitions):
                made = [await side.measure(workload) for side in (ours, other)]
                if made[0] != made[1]:
                    raise RuntimeError(f"a run made {made[0]:g} commits here and {made[1]:g} in the bare program")
            _add(figures, workload.name, ours, other)


def _add(figures: Figures, name: str, ours: Side, other: Side) -> None:
    figures.add("h", f"{name}, by the append port", "runs/s", ours.rates)
    figures.add("h", f"{name}, bare", "runs/s", other.rates, limit=True)
    figures.add("h", f"{name}: CPU time of a run", "ms", ours.totals(), better="less")
    figures.add("h", f"{name}, bare: CPU time of a run", "ms", other.totals(), better="less", limit=True)
    note = ", ".join(
        f"{process} {ours.median(process):.2f} / {other.median(process):.2f} = {_ratio(process, ours, other)}"
        for process in ours.each[0]
    )
    ratios = _ratios(ours, other)
    figures.add("h", f"{name}: CPU time, ours over bare", "times", ratios, aim=AIM, better="less", note=note)
    # NATS's share is mostly syncs: it grows when groups are small, with the load of the machine. This one moves less.
    ratios = _ratios(ours, other, *_OPTIONS)
    figures.add("h", f"{name}: {' and '.join(_OPTIONS)} alone", "times", ratios, better="less")


def _ratios(ours: Side, other: Side, *processes: str) -> list[float]:
    totals = zip(ours.totals(*processes), other.totals(*processes), strict=True)
    return [mine / theirs if theirs else float("inf") for mine, theirs in totals]


def _ratio(process: str, ours: Side, other: Side) -> str:
    theirs = other.median(process)
    return f"{ours.median(process) / theirs:.1f}" if theirs else "-"


def _ours(deployment: Deployment, log: JetStreamLog) -> Side:
    creation = RunCreation(log, lambda: datetime.now(UTC))

    async def commits() -> int:
        return sum((await end_of(log)).sequences)

    return Side(deployment, lambda workload: append(creation, workload), lambda: watching(log), commits)


@asynccontextmanager
async def _bare(servers: Servers) -> AsyncIterator[Side]:
    """The bare program runs while the block lasts."""
    await bare.create(servers.nats.url, servers.postgres.url, "bare")
    running = BareProcesses(servers)
    environment = {**os.environ, "NATS_URL": servers.nats.url, "DATABASE_URL": servers.postgres.url}
    try:
        for part in bare.PROCESSES:
            command = (sys.executable, "-m", "benchmarks.bare", part, "bare")
            running.processes[part] = await asyncio.create_subprocess_exec(*command, env=environment)
        async with bare.connected(servers.nats.url) as client, asyncio.TaskGroup() as group:
            log = bare.Log(client, "bare")
            appending = group.create_task(log.run())

            async def commits() -> int:
                return sum([await log.end(partition) for partition in range(bare.PARTITIONS)])

            yield Side(running, lambda workload: bare_append(log, workload), lambda: bare_watching(log), commits)
            appending.cancel()
    finally:
        for process in running.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def bare_append(log: bare.Log, workload: Workload) -> Publish:
    """Publish the workload's runs by the bare program."""
    tasks = list(workload.tasks())

    async def publish(number: int) -> str:
        run_id, acknowledged = bare.new_run(log, number, workload.group(number), workload.name, tasks)
        await acknowledged
        return run_id

    return publish


@asynccontextmanager
async def bare_watching(log: bare.Log) -> AsyncIterator[Watch]:
    """Watch the bare program's log from its present end on."""
    watch = Watch()
    ends = [await log.end(partition) for partition in range(bare.PARTITIONS)]

    async def follow(partition: int, after: int) -> None:
        async for run_id in bare.finished(log, partition, after):
            watch.note(run_id)

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(follow(partition, after)) for partition, after in enumerate(ends)]
        try:
            yield watch
        finally:
            for reader in readers:
                reader.cancel()
