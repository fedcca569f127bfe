"""The same parts measured alternately in two checkouts: both figures, and their ratio.

Both use the machine in the same minutes, so the ratio survives what the machine does beside them; that of CPU times
survives it best. Each measurement is a process of its own, with the code and the libraries of its checkout.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.report import number

HERE = Path(__file__).parent.parent
Values = dict[tuple[str, str, str], list[float]]
"""By part, name and unit: a value of each repetition."""


def compare(other: Path, parts: str, repetitions: int, console: Console) -> None:
    """Measure the parts in the other checkout and in this one, `repetitions` times each, and print both."""
    values: dict[Path, Values] = {other: defaultdict(list), HERE: defaultdict(list)}
    for repetition in range(repetitions):
        # The order changes with each repetition: the second one finds a disk that the first has written to.
        for checkout in [*values][:: 1 if repetition % 2 == 0 else -1]:
            for key, value in _measured(checkout, parts):
                values[checkout][key].append(value)
    console.print(_table(values[other], values[HERE]))


def _measured(checkout: Path, parts: str) -> Iterator[tuple[tuple[str, str, str], float]]:
    """Measure the parts once. Raises CalledProcessError when that fails."""
    with tempfile.TemporaryDirectory() as results:
        python = checkout / ".venv/bin/python"
        command = (python, "-m", "benchmarks", "--parts", parts, "--repetitions", "1", "--results", results)
        subprocess.run(command, cwd=checkout, check=True, stdout=sys.stderr)
        (written,) = Path(results).iterdir()
        for figure in orjson.loads(written.read_bytes())["figures"]:
            yield (figure["part"], figure["name"], figure["unit"]), figure["median"]


def _table(other: Values, here: Values) -> Table:
    table = Table(title="medians of the other checkout, of this one, and this one over the other", title_justify="left")
    for column in ("", "what"):
        table.add_column(column)
    for column in ("other", "this", "ratio"):
        table.add_column(column, justify="right")
    for part, name, unit in here:
        one, two = (statistics.median(values.get((part, name, unit), [0.0])) for values in (other, here))
        ratio = f"{two / one:.2f}" if one else ""
        table.add_row(part, f"{name}, {unit}", number(one) if one else "", number(two), ratio)
    return table
