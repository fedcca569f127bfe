"""(a) Durable appends: one at a time, and many at once through group commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

from benchmarks.figures import Figures
from benchmarks.machine import fsyncs_per_second
from benchmarks.standing import PARTITIONS, Servers
from benchmarks.workloads import Workload
from runstream.commits import Head, NewCommit
from runstream.events.run import RunCreated
from runstream.ids import content_hash, new_id
from runstream.log.jetstream import JetStreamLog
from runstream.subjects import Address

SECONDS = 1.0
BATCH = 500
CALLERS = 200
GAIN = 3.0
"""What group commit is to give at least."""


async def measure(servers: Servers, figures: Figures, repetitions: int) -> None:
    """The appends of one process, on one partition unless said otherwise."""
    disk: list[float] = []
    measured: dict[str, list[float]] = {name: [] for name in _WAYS}
    async with servers.log("appends") as log:
        for _ in range(repetitions):
            disk.append(await asyncio.to_thread(fsyncs_per_second, servers.folder))
            for name, way in _WAYS.items():
                measured[name].append(await _rate(way, log))
    figures.add("a", "the disk: write and fsync", "1/s", disk, limit=True)
    single = figures.add("a", "one by one", "appends/s", measured.pop("one by one"))
    for name, rates in measured.items():
        figures.add("a", name, "appends/s", rates, aim=GAIN * single.median)


async def _rate(way: Callable[[JetStreamLog, float], Awaitable[int]], log: JetStreamLog) -> float:
    begun = time.perf_counter()
    done = await way(log, begun + SECONDS)
    return done / (time.perf_counter() - begun)


async def _one_by_one(log: JetStreamLog, until: float) -> int:
    done = 0
    for commit in _commits(0):
        await log.append(commit)
        done += 1
        if time.perf_counter() > until:
            break
    return done


async def _together(log: JetStreamLog, until: float) -> int:
    done, commits = 0, _commits(0)
    while time.perf_counter() < until:
        done += len(await log.append_all([next(commits) for _ in range(BATCH)]))
    return done


async def _callers(log: JetStreamLog, until: float, partitions: int = 1) -> int:
    async def call(number: int) -> int:
        done = 0
        for commit in _commits(number % partitions):
            await log.append(commit)
            done += 1
            if time.perf_counter() > until:
                break
        return done

    return sum(await asyncio.gather(*(call(number) for number in range(CALLERS))))


async def _callers_everywhere(log: JetStreamLog, until: float) -> int:
    return await _callers(log, until, PARTITIONS)


_WAYS: dict[str, Callable[[JetStreamLog, float], Awaitable[int]]] = {
    "one by one": _one_by_one,
    f"append_all of {BATCH}": _together,
    f"{CALLERS} callers of append": _callers,
    f"{CALLERS} callers, {PARTITIONS} partitions": _callers_everywhere,
}


def _commits(partition: int) -> Iterator[NewCommit]:
    """Creations of runs, as a gateway appends them."""
    event = RunCreated("run", Workload.group(partition), content_hash(b""), {}, (), "")
    while True:
        yield Head().next_commit(
            Address(partition, "run", new_id()), (event,), time=datetime.now(UTC), actor="user:admin"
        )
