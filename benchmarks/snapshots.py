"""(f) Export, verify and import a log of a million events. (e) The memory it took.

Beside it in the same run: a bare read of the same log, decompressing and hashing the same file, and what Postgres does
by itself with the same rows.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.children import Took, timed
from benchmarks.databases import copied, dumped_and_restored
from benchmarks.figures import Figures
from benchmarks.generate import append
from benchmarks.imports import Import, import_into, make_target
from benchmarks.standing import Servers
from runstream.log.jetstream import JetStreamLog
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.segments import decompressed

RUNS = (10_000, 100_000)
"""Of the two logs, with ten events each: memory is the same for both."""
EXPORT_AIM, VERIFY_AIM, IMPORT_AIM = 40_000.0, 100_000.0, 20_000.0
MEMORY_AIM = 300e6 / (1 << 20)
_SECONDS = 300.0
BUDGET_SECONDS = 240.0
"""After which no repetition is begun, so that it ends in bounded time on a slow machine too."""


@dataclass(slots=True)
class _Measured:
    """What was measured of one log; one value for each repetition."""

    size: str
    events: int = 0
    reads: list[float] = field(default_factory=list)
    exports: list[Took] = field(default_factory=list)
    hashings: list[float] = field(default_factory=list)
    checks: list[Took] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)


async def measure(servers: Servers, figures: Figures, repetitions: int) -> None:
    """Make the logs; then export, verify and import each of them with the commands that people use."""
    ends = time.perf_counter() + BUDGET_SECONDS
    for runs in RUNS:
        async with servers.log(f"exported{runs}") as log:
            await append(servers.nats.url, log, runs)
            await make_target(servers, _target(runs), log.partitions)
            measured = _Measured(f"{runs * 10:,} events")
            for number in range(repetitions if runs == RUNS[-1] else 1):
                if number == 0 or time.perf_counter() < ends:
                    await _repeat(servers, log, runs, measured)
        _add_rates(figures, measured, aims=runs == RUNS[-1])
        _add_memory(figures, measured)
    await _add_postgres(servers, figures, _target(RUNS[-1]), measured)


def _target(runs: int) -> str:
    """The namespace and the schema into which the log is imported."""
    return f"imported{runs}"


async def _repeat(servers: Servers, log: JetStreamLog, runs: int, measured: _Measured) -> None:
    file = servers.folder / "snapshot.tar"
    file.unlink(missing_ok=True)
    url = ("--nats-url", servers.nats.url, "--database-url", servers.postgres.url)
    where = (*url, "--namespace", log.subjects.namespace, "-o", file)
    measured.reads.append(await _read(log))
    measured.exports.append(await timed("export", *where, seconds=_SECONDS))
    measured.hashings.append(_hashed(file))
    measured.checks.append(await timed("snapshot", "verify", file, seconds=_SECONDS))
    measured.imports.append(await import_into(servers, _target(runs), file, runs))
    with open_snapshot(file) as snapshot:
        measured.events = snapshot.manifest.event_count


def _add_rates(figures: Figures, measured: _Measured, *, aims: bool) -> None:
    """Events a second; without aims for a log so small that starting processes is much of it."""
    size, events = measured.size, measured.events
    _add_limit(figures, f"bare read of {size}", events, measured.reads)
    _add(figures, f"export of {size}", events, measured.exports, EXPORT_AIM if aims else None)
    _add_limit(figures, f"decompressing and hashing {size}", events, measured.hashings)
    _add(figures, f"verify of {size}", events, measured.checks, VERIFY_AIM if aims else None)
    imports = [one.command for one in measured.imports]
    _add(figures, f"import of {size}", events, imports, IMPORT_AIM if aims else None)
    _add_cores(figures, f"import of {size}", events, measured.imports)


def _add_cores(figures: Figures, name: str, events: int, imports: Sequence[Import]) -> None:
    """With what the servers took: how far CPU time binds."""
    shares = {"runstream": [one.command.cpu_seconds for one in imports]}
    for server in imports[0].server_cpu_seconds:
        shares[server] = [one.server_cpu_seconds[server] for one in imports]
    each = [sum(taken) / events * 1e6 for taken in zip(*shares.values(), strict=True)]
    note = ", ".join(f"{part} {statistics.median(taken) / events * 1e6:.1f}" for part, taken in shares.items())
    figures.add("f", f"{name}: CPU time of an event with NATS and Postgres", "µs", each, better="less", note=note)
    cores = os.cpu_count() or 1
    can = [cores * 1e6 / one for one in each]
    figures.add("f", f"{name}: what {cores} cores could do with that", "events/s", can, limit=True)


def _add_memory(figures: Figures, measured: _Measured) -> None:
    imports = [one.command for one in measured.imports]
    for name, all_took in (("export", measured.exports), ("verify", measured.checks), ("import", imports)):
        peaks = [took.mebibytes for took in all_took]
        what = f"{name} of {measured.size}: memory of all its processes"
        figures.add("f", what, "MiB", peaks, aim=MEMORY_AIM, better="less")


async def _add_postgres(servers: Servers, figures: Figures, schema: str, measured: _Measured) -> None:
    """What Postgres does with the rows of the last import, in the same unit."""
    rows = f"the rows of {measured.size}"
    copying = await copied(servers, schema)
    both = await dumped_and_restored(servers, schema)
    note = "pg_dump and pg_restore are not installed" if both is None else ""
    _add_limit(figures, f"COPY of {rows}, raw", measured.events, [copying], note)
    for name, took in zip(("pg_dump", "pg_restore"), both or (), strict=False):
        _add_limit(figures, f"{name} of {rows}", measured.events, [took])


def _add_limit(figures: Figures, name: str, events: int, seconds: Sequence[float], note: str = "") -> None:
    figures.add("f", name, "events/s", [events / took for took in seconds], limit=True, note=note)


def _add(figures: Figures, name: str, events: int, all_took: list[Took], aim: float | None) -> None:
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
