"""(f) Export and verify a log of a million events, beside a bare read of the same log. (e) The memory it took."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path

from benchmarks.children import Took, timed
from benchmarks.figures import Figures
from benchmarks.generate import append
from benchmarks.standing import Servers
from runstream.log.jetstream import JetStreamLog
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.segments import decompressed

RUNS = (10_000, 100_000)
"""Of the two logs, with ten events each: memory is the same for both."""
EXPORT_AIM, VERIFY_AIM, MEMORY_AIM = 40_000.0, 100_000.0, 300.0
_SECONDS = 300.0


async def measure(servers: Servers, figures: Figures, repetitions: int) -> None:
    """Make the logs; then export and verify each of them with the commands that people use."""
    for runs in RUNS:
        namespace = f"snapshots-{runs}"
        async with servers.log(namespace) as log:
            await append(servers.nats.url, log, runs)
            await _measure(servers, figures, log, repetitions if runs == RUNS[-1] else 1, f"{runs * 10:,} events")


async def _measure(servers: Servers, figures: Figures, log: JetStreamLog, repetitions: int, size: str) -> None:
    file = servers.folder / "snapshot.tar"
    url = ("--nats-url", servers.nats.url, "--database-url", servers.postgres.url)
    where = (*url, "--namespace", log.subjects.namespace, "-o", file)
    reads, exports, bares, checks = [], [], [], []
    for _ in range(repetitions):
        file.unlink(missing_ok=True)
        reads.append(await _read(log))
        exports.append(await timed("export", *where, seconds=_SECONDS))
        bares.append(_hashed(file))
        checks.append(await timed("snapshot", "verify", file, seconds=_SECONDS))
    with open_snapshot(file) as snapshot:
        events = snapshot.manifest.event_count
    figures.add("f", f"bare read of {size}", "events/s", [events / took for took in reads], limit=True)
    _add(figures, f"export of {size}", events, exports, EXPORT_AIM)
    figures.add("f", f"decompressing and hashing {size}", "events/s", [events / took for took in bares], limit=True)
    _add(figures, f"verify of {size}", events, checks, VERIFY_AIM)
    for name, all_took in (("export", exports), ("verify, all its processes", checks)):
        peaks = [took.mebibytes for took in all_took]
        figures.add("f", f"{name}, {size}: memory", "MiB", peaks, aim=MEMORY_AIM, better="less")


def _add(figures: Figures, name: str, events: int, all_took: list[Took], aim: float) -> None:
    """A rate; beside it the CPU time of an event, which says the same on a machine that has other things to do."""
    figures.add("f", name, "events/s", [events / took.seconds for took in all_took], aim=aim)
    each = [took.cpu_seconds / events * 1e6 for took in all_took]
    figures.add("f", f"{name}: CPU time of an event", "µs", each, better="less")


async def _read(log: JetStreamLog) -> float:
    """Seconds that it takes to read the log and do nothing with it, all partitions at once."""

    async def read(partition: int) -> None:
        end = await log.end(partition)
        async with log.read(partition, 0) as reader:
            while end and (await reader.next_batch(1000))[-1].position.sequence < end:
                pass

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for partition in range(log.partitions):
            group.create_task(read(partition))
    return time.perf_counter() - begun


def _hashed(file: Path) -> float:
    """Seconds that it takes to read the file, decompress it and hash it, in one process."""
    begun = time.perf_counter()
    with open_snapshot(file) as snapshot:
        for segment in snapshot.manifest.segments:
            hashed = hashlib.sha256()
            for chunk in decompressed(segment, snapshot.segment_data(segment)):
                hashed.update(chunk)
    return time.perf_counter() - begun
