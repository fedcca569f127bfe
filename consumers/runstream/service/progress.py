"""The progress of a long command, on stderr: a bar with rate and time left on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

REPORT_INTERVAL = 10.0
"""Seconds between two lines without a terminal."""

_UNITS = {"storing objects": "objects"}

StepCallback = Callable[[int, int], None]
"""Called with the amount done, and the total."""
StageCallback = Callable[[str, int, int], None]
"""Called with the name of the step, the amount done, and the total; 0 for an unknown total."""


@contextlib.contextmanager
def progress(what: str, unit: str = "commits") -> Iterator[StepCallback]:
    """Show the progress of `what`, counted in `unit`, while the block lasts."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(what, unit).step
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        _Rate(unit),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def steps() -> Iterator[StageCallback]:
    """Show the progress of successive steps, each with its own bar or lines."""
    with contextlib.ExitStack() as shown:
        current = ""
        step: StepCallback = _nothing

        def report(what: str, done: int, total: int) -> None:
            nonlocal current, step
            if what != current:
                shown.close()
                current, step = what, shown.enter_context(progress(what, _UNITS.get(what, "commits")))
            if total:
                step(done, total)

        yield report


def _nothing(_done: int, _total: int) -> None:
    return


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Return the amount done, and the rate."""
        speed = task.finished_speed or task.speed
        return Text(f"{task.completed:,.0f} {self._unit}" + (f", {speed:,.0f}/s" if speed else ""))


class _Lines:
    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._begun = self._shown_at = time.monotonic()
        self._before = -1

    def step(self, done: int, total: int) -> None:
        """Write a line, at most one every `REPORT_INTERVAL`."""
        now = time.monotonic()
        if self._before < 0:
            self._before = done
        if now - self._shown_at < REPORT_INTERVAL:
            return
        self._shown_at = now
        rate = (done - self._before) / (now - self._begun)
        left = f", {(total - done) / rate:,.0f} s left" if rate > 0 else ""
        sys.stderr.write(f"{self._what}: {done:,} of {total:,} {self._unit}, {rate:,.0f}/s{left}\n")
