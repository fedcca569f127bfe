"""How a run looks while it runs: its tasks by level, each with status, duration and what it is at."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from runstream.cli.connection import us_command
from runstream.cli.exit_status import described_status
from runstream.cli.finding import run_name
from runstream.cli.output import STYLES, lasted, moment
from runstream.cli.table import Column, render
from runstream.cli.terminal_text import printable
from runstream.client import Attempt, Run, RunSummary, Step, Task

MARKS = {"success": "✓", "failed": "✗", "running": "●", "skipped": "-", "cancelled": "-", "stopped": "■"}
_WAITING = "○"
_SHOWN_WAIT_SECONDS = 1.0
_FAILURES = {"timeout": "failed: timed out", "lost": "failed: executor lost"}
_LIMITS = {"timeout": ", took too long", "no_output": ", silent for too long"}


def ordered(run: Run) -> list[Task]:
    """The tasks as they are shown: by level, then by name."""
    return sorted(run.tasks.values(), key=lambda task: (task.level, task.name))


_COLUMNS = (Column("", wraps=True), Column(""), Column("", drop=1), Column("", wraps=True))


@dataclass(slots=True)
class RunGraph:
    """A run as rich draws it; durations go on by themselves."""

    run: Run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now = datetime.now(UTC)
        yield headline(self.run, now)
        rows: list[tuple[Text, ...]] = []
        for task in ordered(self.run):
            style = STYLES.get(task.status, "")
            mark = MARKS.get(task.status, _WAITING)
            rows.append(
                (
                    Text(f"{'   ' * task.level}{mark} {task.name}", style=style),
                    Text(word_for(task), style=style),
                    Text(lasted(task.start_time, task.end_time, now) if task.start_time else ""),
                    Text(detail(self.run, task), style="dim"),
                )
            )
        yield from render(_COLUMNS, rows, options.max_width)
        for command in approvals(self.run):
            yield Text(f"approve with: {command}", style="bold")


def headline(run: Run, now: datetime | None = None) -> Text:
    """The run in one line: name, number, phase or result, duration."""
    word = outcome(run)
    took = f"  {lasted(run.start_time, run.end_time, now)}" if run.start_time else ""
    why = "  its time was up" if run.timedout else ""
    return Text.assemble((title(run), "bold"), "  ", (word, STYLES.get(word, "")), took, why)


def title(run: RunSummary) -> str:
    """The run as people call it."""
    name = printable(run.name)
    return f"run {name} #{run.counter}" if run.counter else f"run {name}"


def outcome(run: RunSummary) -> str:
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
    if task.kept:
        return f"{task.status} (kept)"
    if task.status == "failed":
        return _FAILURES.get(task.failure, "failed")
    if task.status == "notstarted":
        return "tried again" if task.attempts else "waiting"
    return task.status


def approvals(run: Run) -> list[str]:
    """Return the command for each task that is waiting for approval."""
    waiting = [task for task in ordered(run) if task.waiting_approval]
    return [f"{us_command()} run approve {run_name(run)} {shlex.quote(task.name)}" for task in waiting]


def detail(run: Run, task: Task) -> str:
    """What a task is at: the step that runs, the one that failed, the tasks that it waits for; and in which attempt."""
    return ": ".join(filter(None, (_attempt(task), _doing(run, task))))


def _attempt(task: Task) -> str:
    """Which attempt it is, where there were or may be others."""
    if task.max_attempts == 1 or (task.attempt == 1 and task.status not in ("running", "failed")):
        return ""
    which = f"attempt {task.attempt} of {task.max_attempts}"
    if task.status != "notstarted" or task.not_before is None or task.attempts[-1].end_time is None:
        return which
    waits = (task.not_before - task.attempts[-1].end_time).total_seconds()
    return f"{which} at {moment(task.not_before)}" if waits >= _SHOWN_WAIT_SECONDS else which


def _doing(run: Run, task: Task) -> str:
    for index, step in enumerate(task.steps):
        if task.status == "running" and step.phase == "running":
            return f"step {index + 1} of {len(task.steps)}: {_short(step.name)}"
    if task.status == "failed":
        return how_failed(task)
    if task.status == "notstarted" and task.attempts:
        last = task.attempts[-1]
        return f"attempt {last.attempt} {_FAILURES.get(last.failure, 'failed')}, {how_failed(last)}".rstrip(", ")
    if task.status == "notstarted" and task.depends:
        return "after " + ", ".join(sorted(run.tasks[parent].name for parent in task.depends if parent in run.tasks))
    return ""


def how_failed(attempt: Task | Attempt) -> str:
    """The step that failed, and how; or what else there is to say."""
    for index, step in enumerate(attempt.steps):
        if step.phase == "failed":
            how = f", {_reason(attempt, step)}".rstrip(", ")
            return f"step {index + 1} of {len(attempt.steps)}: {_short(step.name)}{_LIMITS.get(step.timedout, how)}"
    return attempt.fail_error or ("the setup failed" if attempt.setup_step.phase == "failed" else "")


def _reason(attempt: Task | Attempt, step: Step) -> str:
    """Return why a step failed: the executor's reason, else what its exit status says."""
    if attempt.fail_error and not attempt.fail_error.startswith("setup"):
        return attempt.fail_error.partition(" failed: ")[2] or attempt.fail_error
    return "" if step.exit_status is None else described_status(step.exit_status)


def _short(name: str) -> str:
    first = name.splitlines()[0] if name else ""
    return first if len(first) <= 48 else f"{first[:47]}…"
