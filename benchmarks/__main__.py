"""Measure, print a table, and write bench-results/<timestamp>.json."""

from __future__ import annotations

import argparse
import pstats
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks import (
    against,
    appends,
    comparison,
    containers,
    files,
    graphs,
    latency,
    lists,
    projection,
    projects,
    report,
    snapshots,
    throughput,
)
from benchmarks.figures import Figures
from benchmarks.machine import facts, load
from benchmarks.standing import Deployment, Servers, servers
from benchmarks.usage import add_memory
from runstream.executor.drivers.process import missing_sandbox
from runstream.telemetry import setup_logging

NOOP = {"gateway": (), "scheduler": (), "executor": ("--driver", "noop", "--active-tasks-limit", "0")}
_PROCESSES = ("--driver", "process", "--active-tasks-limit", str(latency.SHELL_AT_ONCE))
SHELL = {**NOOP, "executor": (*_PROCESSES, "--sandbox", "off")}
SANDBOX = {**NOOP, "executor": (*_PROCESSES, "--sandbox", "require")}
MEASURED = (
    ("noop", NOOP, latency.measure_noop),
    ("shell", SHELL, latency.measure_shell),
)
_PROFILE_LINES = 35


def main() -> int:
    """The command; its exit code is 1 when an aim was missed and `--strict` is given."""
    options = _options()
    setup_logging("warning")
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.against is not None:
        against.compare(options.against, options.parts, options.repetitions, console)
        return 0
    figures = Figures(lambda figure: console.print("  ", *report.cells(figure)[:3]))
    machine: dict[str, object] = {"load_before": load()}
    uvloop.run(_measure(options, figures, machine, console))
    report.show(figures, console)
    path = report.write(figures, {**machine, "load_after": load()}, options.results)
    console.print(f"load {machine['load_before']} before, {load()} after; written to {path}")
    return int(options.strict and any(figure.reached is False for figure in figures.all))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parts = "; ".join(f"{part}: {title}" for part, title in report.TITLES.items())
    parser.add_argument("--parts", default="abcdefghijkl", help=f"which parts to measure ({parts}); e comes with c")
    parser.add_argument("--repetitions", type=int, default=3, help="of each part; a figure is their median")
    parser.add_argument("--runs", type=int, default=100_000, help="of part l, which takes a minute for each 100,000")
    parser.add_argument("--folder", type=Path, help="where the servers keep their data meanwhile; default: TMPDIR")
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    parser.add_argument(
        "--profile", default="", choices=["gateway", "scheduler", "executor"], help="of parts c, d, g, h"
    )
    parser.add_argument("--against", type=Path, help="another checkout: measure both by turns, and print ratios")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when an aim is missed")
    return parser.parse_args()


async def _measure(options: argparse.Namespace, figures: Figures, machine: dict[str, object], console: Console) -> None:
    async with servers(options.folder) as standing:
        machine.update(facts(standing.folder))
        if "a" in options.parts:
            console.print("(a) durable appends")
            await appends.measure(standing, figures, options.repetitions)
        if "b" in options.parts:
            console.print("(b) projection")
            await projection.measure(standing, figures, options.repetitions, NOOP)
        if set("cde") & set(options.parts):
            await _end_to_end(options, standing, figures, console)
        if "f" in options.parts:
            console.print("(f) export, verify and import")
            await snapshots.measure(standing, figures, options.repetitions)
        if "g" in options.parts:
            console.print("(g) a graph of tasks")
            await _graph(options, standing, figures)
        if "h" in options.parts:
            console.print("(h) CPU time beside the bare program")
            await comparison.measure(standing, figures, options.repetitions, options.profile)
        if "i" in options.parts:
            console.print("(i) workspace archives, and lines of a large log")
            await files.measure(options.folder, figures, options.repetitions)
            async with standing.log("files"):
                deployment = Deployment(standing, "files", profiled=options.profile)
                async with deployment.running(**SHELL):
                    await files.measure_live(deployment, figures, options.repetitions)
        if "j" in options.parts:
            console.print("(j) tasks in containers")
            await _containers(options, standing, figures, console)
        if "k" in options.parts:
            console.print("(k) users, projects and secrets")
            await projects.measure(standing, figures, options.repetitions)
        if "l" in options.parts:
            console.print(f"(l) reads with {options.runs:,} runs")
            await lists.measure(standing, figures, options.repetitions, options.runs)
        if options.profile:
            stats = pstats.Stats(str(standing.folder / f"{options.profile}.prof"), stream=sys.stdout)
            stats.sort_stats("tottime").print_stats(_PROFILE_LINES)


async def _end_to_end(options: argparse.Namespace, standing: Servers, figures: Figures, console: Console) -> None:
    for name, components, measure in MEASURED:
        if name != "noop" and "d" not in options.parts:
            return
        async with AsyncExitStack() as stack:
            deployment = Deployment(standing, name, profiled=options.profile)
            log = await stack.enter_async_context(standing.log(name))
            await stack.enter_async_context(deployment.running(**components))
            if "d" in options.parts:
                console.print(f"(d) idle latency, {name}")
                await measure(deployment, log, figures, options.repetitions)
            if name == "noop" and set("ce") & set(options.parts):
                console.print("(c) runs end to end")
                await throughput.measure(deployment, log, figures, options.repetitions)
                add_memory(figures, deployment)
    await _sandboxes(options, standing, figures, console)


async def _sandboxes(options: argparse.Namespace, standing: Servers, figures: Figures, console: Console) -> None:
    if reason := await missing_sandbox():
        console.print(f"(d) nothing is measured in a sandbox: {reason}")
        return
    console.print("(d) idle latency, sandbox")
    deployment, without = Deployment(standing, "sandbox", profiled=options.profile), Deployment(standing, "without")
    async with (
        standing.log("sandbox") as log,
        standing.log("without") as log_without,
        deployment.running(**SANDBOX),
        without.running(**SHELL),
    ):
        await latency.measure_sandbox(deployment, log, without, log_without, figures, options.repetitions)


async def _containers(options: argparse.Namespace, standing: Servers, figures: Figures, console: Console) -> None:
    if reason := containers.missing():
        console.print(f"(j) nothing is measured: {reason}")
        return
    async with containers.started(options.folder) as (engine, settings), standing.log("containers"):
        deployment = Deployment(standing, "containers", profiled=options.profile)
        async with deployment.running(**{**NOOP, "executor": ("--config", str(settings), "--sandbox", "off")}):
            await containers.measure(deployment, engine, figures, options.repetitions)


async def _graph(options: argparse.Namespace, standing: Servers, figures: Figures) -> None:
    await graphs.measure_check(figures, options.repetitions)
    async with standing.log("graph") as log:
        deployment = Deployment(standing, "graph", profiled=options.profile)
        async with deployment.running(**NOOP):
            await graphs.measure(deployment, log, figures, options.repetitions)


if __name__ == "__main__":
    sys.exit(main())
