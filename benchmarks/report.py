"""The report: a table for readers, and the same figures as JSON."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, Figures

TITLES = {
    "a": "durable appends",
    "b": "projection",
    "c": "runs that do nothing, end to end",
    "d": "idle latency, and shell runs",
    "e": "peak memory",
    "f": "export, verify and import",
    "g": "a graph of 500 tasks, and what a check costs",
    "h": "CPU time beside the bare program",
    "i": "workspace archives, and lines of a large log",
    "j": "tasks in containers",
    "k": "users, projects and secrets",
    "l": "reads of a deployment with many runs",
    "m": "the page in a browser (`make bench-page`)",
}


def show(figures: Figures, console: Console) -> None:
    """Print all figures, part by part; what the machine itself can do is dim."""
    table = Table(title="medians", title_justify="left")
    for column, justify in (("", "left"), ("what", "left"), ("median", "right"), ("unit", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for column in ("repetitions", "aim", "reached"):
        table.add_column(column, justify="right")
    for part in TITLES:
        for number, figure in enumerate(f for f in figures.all if f.part == part):
            table.add_row(part if number == 0 else "", *cells(figure), style="dim" if figure.limit else "")
        table.add_section()
    console.print(table)
    for figure in figures.all:
        if figure.note:
            console.print(f"({figure.part}) {figure.name}: {figure.note}", soft_wrap=True)


def cells(figure: Figure) -> tuple[str, ...]:
    """A figure's row: what, median, unit, repetitions, aim, whether it is reached."""
    aim = "" if figure.aim is None else f"{'>=' if figure.better == 'more' else '<='} {number(figure.aim)}"
    reached = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[figure.reached]
    repetitions = " ".join(number(value) for value in figure.values)
    return figure.name, number(figure.median), figure.unit, repetitions, aim, reached


def number(value: float) -> str:
    """Return a figure with three or more digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def write(figures: Figures, facts: dict[str, object], folder: Path) -> Path:
    """Write everything to a new file `<timestamp>.json` in the folder; its path."""
    now = datetime.now(UTC)
    rows = [{**asdict(f), "median": f.median, "reached": f.reached} for f in figures.all]
    path = folder / f"{now:%Y%m%dT%H%M%SZ}.json"
    folder.mkdir(exist_ok=True)
    path.write_bytes(orjson.dumps({"at": now, "machine": facts, "figures": rows}, option=orjson.OPT_INDENT_2))
    return path
