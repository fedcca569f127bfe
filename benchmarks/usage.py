"""What the processes used: the CPU time of a load, and (e) each process's peak memory."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Protocol, TypeAlias

import psutil

from benchmarks.figures import Figures

Taken: TypeAlias = dict[str, float]
"""Seconds of CPU time, by the part that took them."""


class Processes(Protocol):
    """What is measured: a deployment, or the bare program."""

    def families(self) -> dict[str, list[psutil.Process]]:
        """Return its processes and those of the servers, by the part that they belong to."""
        ...


def cpu_seconds(processes: Processes) -> Taken:
    """Return the CPU time that each part has taken so far; the publisher is this process."""
    taken = {"publisher": time.process_time()}
    for name, family in processes.families().items():
        taken[name] = 0.0
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # a connection of the database may end at any time
                times = process.cpu_times()
                taken[name] += times.user + times.system
                if name == "postgres":  # what its connections took that have ended
                    taken[name] += times.children_user + times.children_system
    return taken


def cpu_of_a_run(before: Taken, after: Taken, runs: int) -> dict[str, float]:
    """Milliseconds of CPU time that one of the runs took in each part, the largest first."""
    each = {part: (taken - before.get(part, 0.0)) / runs * 1000 for part, taken in after.items()}
    return dict(sorted(each.items(), key=lambda one: -one[1]))


def add_cpu(figures: Figures, part: str, name: str, before: Taken, after: Taken, runs: int) -> None:
    """What a run took of each part's CPU time: it says what binds, whatever else the machine has to do."""
    each = cpu_of_a_run(before, after, runs)
    shares = ", ".join(f"{part} {milliseconds:.2f}" for part, milliseconds in each.items())
    whole = sum(each.values())
    figures.add(part, f"{name}: CPU time of a run", "ms", [whole], better="less", note=shares)
    cores = os.cpu_count() or 1
    figures.add(part, f"{name}: what {cores} cores could do with that", "runs/s", [cores * 1000 / whole], limit=True)


def add_memory(figures: Figures, processes: Processes) -> None:
    """The most memory each process has had at once; of Postgres its largest process, shared memory included."""
    for name, family in processes.families().items():
        peak = max(_peak_mebibytes(process.pid) for process in family)
        note = "its largest process, shared memory included" if name == "postgres" else ""
        figures.add("e", name, "MiB", [peak], better="less", note=note)


def _peak_mebibytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0  # it ended while we looked
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
