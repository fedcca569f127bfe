"""What the processes took of the machine: the CPU time of a load, and (e) the most memory that each has had."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

from benchmarks.figures import Figures
from benchmarks.standing import Deployment


def cpu_seconds(deployment: Deployment) -> dict[str, float]:
    """The CPU time that each part has taken so far; the publisher is this process."""
    taken = {"publisher": time.process_time()}
    for name, family in deployment.families().items():
        taken[name] = 0.0
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # a connection of the database may end at any time
                times = process.cpu_times()
                taken[name] += times.user + times.system
    return taken


def add_cpu(figures: Figures, name: str, before: dict[str, float], after: dict[str, float], runs: int) -> None:
    """What a run took of each part's CPU time: it says what binds, whatever else the machine has to do."""
    each = {part: (taken - before.get(part, 0)) / runs * 1000 for part, taken in after.items()}
    shares = ", ".join(f"{part} {milliseconds:.2f}" for part, milliseconds in each.items())
    figures.add("c", f"{name}: CPU time of a run", "ms", [sum(each.values())], better="less", note=shares)


def add_memory(figures: Figures, deployment: Deployment) -> None:
    """The most memory each process has had at once; of Postgres its largest process, shared memory included."""
    for name, family in deployment.families().items():
        peak = max(_peak_mebibytes(process.pid) for process in family)
        note = "its largest process, shared memory included" if name == "postgres" else ""
        figures.add("e", name, "MiB", [peak], better="less", note=note)


def _peak_mebibytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0  # it ended while we looked
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
