"""How a run looks while it runs: its tasks by level, each with status, duration and what it is at."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from runstream.cli.connection import us_command
from runstream.cli.output import STYLES, lasted
from runstream.client import Run, Task

MARKS = {"success": "✓", "failed": "✗", "running": "●", "skipped": "-", "cancelled": "-", "stopped": "■"}
_WAITING = "○"


def ordered(run: Run) -> list[Task]:
    """The tasks as they are shown: by level, then by name."""
    return sorted(run.tasks.values(), key=lambda task: (task.level, task.name))


@dataclass(slots=True)
class RunGraph:
    """A run as rich draws it; durations go on by themselves."""

    run: Run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now = datetime.now(UTC)
        yield headline(self.run, now)
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for task in ordered(self.run):
            style = STYLES.get(task.status, "")
            mark = MARKS.get(task.status, _WAITING)
            table.add_row(
                Text(f"{'   ' * task.level}{mark} {task.name}", style=style),
                Text(word_for(task), style=style),
                Text(lasted(task.start_time, task.end_time, now) if task.start_time else "", justify="right"),
                Text(detail(self.run, task), style="dim"),
            )
        yield table


def headline(run: Run, now: datetime | None = None) -> Text:
    """The run in one line: name, number, phase or result, duration."""
    word = outcome(run)
    took = f"  {lasted(run.start_time, run.end_time, now)}" if run.start_time else ""
    return Text.assemble((title(run), "bold"), "  ", (word, STYLES.get(word, "")), took)


def title(run: Run) -> str:
    """The run as people call it."""
    return f"run {run.name} #{run.counter}" if run.counter else f"run {run.name}"


def outcome(run: Run) -> str:
    """Its result once it is finished; before, its phase."""
    if run.phase == "finished":
        return run.result.value
    if run.paused_at is not None:
        return f"{run.phase}, paused"
    return f"{run.phase}, {run.result}" if run.result == "failed" else run.phase.value


def word_for(task: Task) -> str:
    """The status in words; why it waits, where it does."""
    if task.waiting_approval:
        return "waits for approval"
    if task.status == "failed" and task.timedout:
        return "failed: timed out"
    if task.kept:
        return f"{task.status} (kept)"
    return "waiting" if task.status == "notstarted" else task.status


def detail(run: Run, task: Task) -> str:
    """What a task is at: the step that runs, the one that failed, the tasks that it waits for."""
    for index, step in enumerate(task.steps):
        if task.status == "running" and step.phase == "running":
            return f"step {index + 1} of {len(task.steps)}: {_short(step.name)}"
        if task.status == "failed" and step.phase == "failed":
            status = "" if step.exit_status is None else f", exit status {step.exit_status}"
            return f"step {index + 1} of {len(task.steps)}: {_short(step.name)}{status}"
    if task.waiting_approval:
        return f"{us_command()} run approve {run.id} {shlex.quote(task.name)}"
    if task.status == "failed":
        return task.fail_error or ("the setup failed" if task.setup_step.phase == "failed" else "")
    if task.status == "notstarted" and task.depends:
        return "after " + ", ".join(sorted(run.tasks[parent].name for parent in task.depends if parent in run.tasks))
    return ""


def _short(name: str) -> str:
    first = name.splitlines()[0] if name else ""
    return first if len(first) <= 48 else f"{first[:47]}…"
