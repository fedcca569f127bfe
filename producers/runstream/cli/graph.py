"""A run in text: its tasks as a graph, each with status, duration and current step, and the words for all of them."""

from __future__ import annotations

import shlex
import signal
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from runstream.cli.connection import program_command
from runstream.cli.finding import run_name
from runstream.cli.output import STYLES, Column, display_word, duration, render, timestamp
from runstream.cli.terminal_text import printable
from runstream.client import Attempt, Run, RunSummary, Step, Task
from runstream.counting import listed

MARKS = {"success": "✓", "failed": "✗", "running": "●", "skipped": "-", "cancelled": "-", "stopped": "■"}
ENDS = ("success", "failed", "stopped", "skipped", "cancelled")
"""Statuses of tasks that have ended."""
_WAITING = "○"
_DEEPEST = 8
"""Levels of indentation."""
_NAMED = 4
"""Maximum number of dependencies that are named."""
_SHOWN_WAIT_SECONDS = 1.0
_FAILURES = {"lost": "failed: executor lost"}
_COLUMNS = (Column("", wraps=True), Column(""), Column("", drop=1), Column("", wraps=True))
_INTEREST = {"waits for approval": 0, "running": 0, "failed": 1, "waiting": 3, "success": 4}
"""Rank of a task; those with the highest are counted first when there is no room for all."""
_OF_SHELLS = {
    126: "the command cannot be executed",
    127: "a command was not found",
}
_KILLED = {
    signal.SIGKILL: "killed: SIGKILL, often for lack of memory",
    signal.SIGXFSZ: "SIGXFSZ: a file became larger than it may be",
}
_FIRST_SIGNAL_STATUS = 128


def by_level(run: Run) -> list[Task]:
    """Return the tasks by level, then by name."""
    return sorted(run.tasks.values(), key=lambda task: (task.level, task.name))


def graph_rows(run: Run) -> list[tuple[int, Task]]:
    """Return the tasks in the order of the graph, each with its indentation.

    A task with one dependency is indented below it. A task with several comes after all of them, not indented.
    """
    below: dict[str, list[Task]] = {}
    tops: list[Task] = []
    for task in by_level(run):
        parents = [parent for parent in task.depends if parent in run.tasks]
        (below.setdefault(parents[0], []) if len(parents) == 1 else tops).append(task)
    rows: list[tuple[int, Task]] = []
    for top in tops:
        stack = [(0, top)]
        while stack:
            level, task = stack.pop()
            rows.append((level, task))
            stack.extend((level + 1, child) for child in reversed(below.get(task.id, ())))
    return rows


@dataclass(slots=True)
class RunGraph:
    """A run as a rich renderable."""

    run: Run
    now: datetime | None = None
    """The time as of which it is shown; None for that of showing it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now = self.now or datetime.now(UTC)
        yield headline(self.run, now)
        yield from graph_lines(self.run, options.max_width, now)


def graph_lines(
    run: Run, width: int, now: datetime, *, height: int = sys.maxsize, reasons: Mapping[str, str] = MappingProxyType({})
) -> list[Text]:
    """Return a run's tasks in lines of at most `width` cells, then the commands that approve waiting ones.

    `reasons` says why tasks wait, by name. When the tasks need more than `height` lines, the least interesting ones,
    which succeeded or wait for others, are counted instead.
    """
    rows = graph_rows(run)
    by_interest = sorted(range(len(rows)), key=lambda index: _INTEREST.get(_kind(rows[index][1]), 2))

    def fewer(shown: int) -> list[Text]:
        kept = set(by_interest[:shown])
        some = _task_lines(run, [row for index, row in enumerate(rows) if index in kept], width, now, reasons)
        rest = Counter(status_text(rows[index][1]) for index in by_interest[shown:])
        counts = ", ".join(f"{count} {word}" for word, count in sorted(rest.items()))
        return [*some, Text(f"… and {counts}", style="dim")]

    lines = _task_lines(run, rows, width, now, reasons)
    if len(lines) > height:
        most = bisect_right(range(1, min(len(rows), height)), height, key=lambda shown: len(fewer(shown)))
        lines = fewer(most)
    for command in approvals(run):
        lines.append(Text("approve with:", style="bold"))
        lines.extend(Text(part, style="bold") for part in folded(command, width))
    return lines


def _kind(task: Task) -> str:
    return status_text(task) if task.status == "notstarted" else task.status


def _task_lines(
    run: Run, rows: Iterable[tuple[int, Task]], width: int, now: datetime, reasons: Mapping[str, str]
) -> list[Text]:
    cells: list[tuple[Text, ...]] = []
    for level, task in rows:
        style = STYLES.get(task.status, "")
        mark = MARKS.get(task.status, _WAITING)
        doing = reasons.get(task.name, "") if status_text(task) == "waiting" else ""
        cells.append(
            (
                Text(f"{'  ' * min(level, _DEEPEST)}{mark} {task.name}", style=style),
                Text(status_text(task), style=style),
                Text(duration(task.start_time, task.end_time, now) if task.start_time else ""),
                Text("; ".join(filter(None, (doing or detail(task), _after(run, task)))), style="dim"),
            )
        )
    return render(_COLUMNS, cells, width)


def folded(command: str, width: int) -> list[str]:
    """Wrap a command in lines that a shell joins when they are pasted; words are never cut."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if lines[-1] and len(lines[-1]) + len(word) + len("  \\") > width:
            lines[-1] += " \\"
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def is_waiting(run: Run) -> bool:
    """Return whether the run waits, or one of its tasks waits for something else than another task."""
    if run.phase == "queued" or run.paused_at is not None:
        return True
    return any(
        task.status == "notstarted"
        and not task.waiting_approval
        and all(run.tasks[parent].status in ENDS for parent in task.depends if parent in run.tasks)
        for task in run.tasks.values()
    )


def task_line(task: Task) -> str:
    """Return the state of a task in one line."""
    word = status_text(task)
    parts = [f"{printable(task.name)}: {word}"]
    if task.end_time and task.start_time:
        parts.append(f"after {duration(task.start_time, task.end_time)}")
    if (task.status == "failed" or word == "tried again") and detail(task):
        parts.append(f"({detail(task)})")
    return " ".join(parts)


def headline(run: Run, now: datetime | None = None) -> Text:
    """Return the run in one line: name, number, phase or result, duration."""
    word = outcome(run)
    took = f"  {duration(run.start_time, run.end_time, now)}" if run.start_time else ""
    why = "  timed out" if run.timedout else ""
    return Text.assemble((title(run), "bold"), "  ", (display_word(word), STYLES.get(word, "")), took, why)


def title(run: RunSummary) -> str:
    """Return the run's name and number for people."""
    name = printable(run.name)
    return f"run {name} #{run.counter}" if run.counter else f"run {name}"


def outcome(run: RunSummary) -> str:
    """Return the result of a finished run, else its phase."""
    if run.phase == "finished":
        return run.result.value
    if run.paused_at is not None:
        return f"{run.phase}, paused"
    return f"{run.phase}, {run.result}" if run.result == "failed" else run.phase.value


def status_text(task: Task) -> str:
    """Return the status of a task in words."""
    if task.waiting_approval:
        return "waits for approval"
    if task.kept:
        return f"{task.status} (kept)"
    if task.status == "failed":
        return _FAILURES.get(task.failure, "failed")
    if task.status == "notstarted":
        return "tried again" if task.attempts else "waiting"
    return task.status


def warnings(run: Run) -> list[str]:
    """Return the warnings of a run's steps, each with its task and step."""
    return [
        f"warning: {printable(f'{task.name}, step {index}: {warning}')}"
        for task in by_level(run)
        for index, step in enumerate(task.steps)
        for warning in step.warnings
    ]


def approvals(run: Run) -> list[str]:
    """Return the approving command for each task that waits for approval."""
    return [approval(run, task) for task in by_level(run) if task.waiting_approval]


def approval(run: Run, task: Task) -> str:
    """Return the command that approves a task."""
    return f"{program_command()} run approve {run_name(run)} {shlex.quote(task.name)}"


def log_command(run: RunSummary, task: str, *steps: int | None) -> str:
    """Return the command that prints the log of a task, or of a step of it (None: of the setup)."""
    options = ["--setup" if step is None else f"--step {step}" for step in steps]
    return " ".join([f"{program_command()} log get {run_name(run)} {shlex.quote(task)}", *options])


def detail(task: Task) -> str:
    """Return the running or failed step of a task, with the attempt."""
    return ": ".join(filter(None, (_attempt(task), _doing(task))))


def _attempt(task: Task) -> str:
    """Return the attempt, if the task may have several."""
    if task.max_attempts == 1 or (task.attempt == 1 and task.status not in ("running", "failed")):
        return ""
    which = f"attempt {task.attempt} of {task.max_attempts}"
    if task.status != "notstarted" or task.not_before is None or task.attempts[-1].end_time is None:
        return which
    waits = (task.not_before - task.attempts[-1].end_time).total_seconds()
    return f"{which} at {timestamp(task.not_before)}" if waits >= _SHOWN_WAIT_SECONDS else which


def _doing(task: Task) -> str:
    for index, step in enumerate(task.steps):
        if task.status == "running" and step.phase == "running":
            return f"step {index + 1} of {len(task.steps)}: {_short(step.name)}"
    if task.status == "failed":
        return failure_text(task)
    if task.status == "notstarted" and task.attempts:
        last = task.attempts[-1]
        return f"attempt {last.attempt} {_FAILURES.get(last.failure, 'failed')}, {failure_text(last)}".rstrip(", ")
    return ""


def _after(run: Run, task: Task) -> str:
    """Return the dependencies that the graph does not show, or that the task waits for."""
    names = sorted(run.tasks[parent].name for parent in task.depends if parent in run.tasks)
    if len(names) < 2 and (task.status != "notstarted" or task.attempts or not names):
        return ""
    return f"after {listed(names, _NAMED)}"


def failure_text(attempt: Task | Attempt) -> str:
    """Return the failed step and its reason, or else the error of the attempt."""
    for index, step in enumerate(attempt.steps):
        if step.phase == "failed":
            how = f", {_reason(attempt, step)}".rstrip(", ")
            return f"step {index + 1} of {len(attempt.steps)}: {_short(step.name)}{how}"
    return attempt.fail_error or ("the setup failed" if attempt.setup_step.phase == "failed" else "")


def _reason(attempt: Task | Attempt, step: Step) -> str:
    """Return why a step failed: the executor's reason, or else the exit status."""
    if attempt.fail_error and not attempt.fail_error.startswith("setup"):
        return attempt.fail_error.partition(" failed: ")[2] or attempt.fail_error
    if attempt.failure == "timeout":  # of an executor that did not say after what time, or that hangs
        return "timed out without output" if step.timedout == "no_output" else "timed out"
    return "" if step.exit_status is None else described_status(step.exit_status)


def _short(name: str) -> str:
    first = name.splitlines()[0] if name else ""
    return first if len(first) <= 48 else f"{first[:47]}…"


def by_start(run: Run) -> list[Task]:
    """Return the tasks by start time, then those that have not started by level."""
    started = sorted((task for task in run.tasks.values() if task.start_time), key=_started)
    return started + [task for task in by_level(run) if not task.start_time]


def failed_steps(task: Task | Attempt) -> list[int | None]:
    """Return the failed steps (None: the setup), or else the one that started last."""
    steps: list[tuple[int | None, Step]] = [(None, task.setup_step), *enumerate(task.steps)]
    failed = [number for number, step in steps if step.phase == "failed"]
    return failed or [number for number, step in steps if step.start_time is not None][-1:]


def _started(task: Task) -> tuple[object, ...]:
    return task.start_time, task.level, task.name


def described_status(status: int) -> str:
    """Return `exit status N`, with the signal or the shell's meaning in brackets, by the conventions of shells."""
    meaning = _OF_SHELLS.get(status, "")
    if status > _FIRST_SIGNAL_STATUS:
        try:
            number = signal.Signals(status - _FIRST_SIGNAL_STATUS)
        except ValueError:  # the command's own number
            meaning = ""
        else:
            meaning = _KILLED.get(number, number.name)
    return f"exit status {status} ({meaning})" if meaning else f"exit status {status}"
