"""The screen that shows a followed run: on a terminal a live graph below the logs, elsewhere plain lines in order.

A terminal shows some thousand lines a second; a task can write a hundred times as many. Lines that cannot be drawn in
time are omitted and counted, so that the screen always shows the present.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from runstream.cli.graph import graph_lines, headline, log_command, title
from runstream.cli.log_text import LINE_CHARS
from runstream.cli.output import console, display_word, say, shows_colours
from runstream.cli.terminal_text import printable
from runstream.client import Reason, Run
from runstream.counting import counted

_COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
_FRAME_SECONDS = 0.125
_TERMINAL_LINE_CHARS = 4 << 10
_UNFINISHED = 5
"""Maximum number of unfinished lines that are shown."""
_PASSING = ("deciding", "storing", "running", "assigned", "dependency", "approval", "stopping", "ended")
"""Reasons that are not shown: they pass in a moment, or are visible otherwise."""
_SEQUENCE = re.compile("\x1b\\[[0-9;:]*m")
HELD_LINES = 500
"""Maximum number of queued lines of a task; the oldest are omitted."""
FRAME_LINES = 500
FRAME_CHARS = 64 << 10
"""Maximum size of a frame, in lines and characters; the last line may be longer."""
PAUSE_SECONDS = 1.0
"""Pause of a task after lines of it were omitted."""


class Screen(ABC):
    """A view of a run and the lines of its logs."""

    colours: bool
    """True if lines of logs may have colours."""
    line_chars: int
    """Maximum length of a line; a longer one continues in the next."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    @abstractmethod
    def show(self, run: Run) -> None:
        """Show the current state of the run."""

    @abstractmethod
    def explain(self, reasons: Sequence[Reason]) -> None:
        """Show why the run or its tasks wait."""

    @abstractmethod
    def log(self, task: str, lines: list[str], unfinished: str) -> None:
        """Show lines of a task's log, and its unfinished line."""

    @abstractmethod
    def say(self, lines: list[str]) -> None:
        """Show the state of a task, after all its lines and before those of the tasks that depend on it."""

    @abstractmethod
    async def draw(self) -> None:
        """Draw until cancelled."""


def screen() -> Screen:
    """Return the screen for this process's output."""
    out = console()
    return LiveScreen(out) if out.is_terminal and not out.is_dumb_terminal else PlainScreen()


class LiveScreen(Screen):
    """A terminal: logs scroll, and the graph stays below them, current however much is written."""

    def __init__(self, out: Console) -> None:
        self.colours = shows_colours()
        self.line_chars = _TERMINAL_LINE_CHARS
        self._out = out
        self._backlog = QueuedLines()
        self._run: Run | None = None
        self._reasons: dict[str, str] = {}
        self._unfinished: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._long_lines: list[str] = []
        self._drawn: list[str] = []
        """The lines of the graph on the terminal, without colours."""
        self._last = ""

    def __exit__(self, *error: object) -> None:
        if isinstance(error[1], OSError):
            return  # the terminal is gone
        for task, line in self._unfinished.items():
            self._backlog.add(task, [line])
        self._unfinished = {}
        lines = ["", *self._graph(sys.maxsize)] if self._run is not None else []
        self._write(self._backlog.rest(), [])
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()

    def show(self, run: Run) -> None:
        """Show the current state of the run in the next frame."""
        self._run = run

    def explain(self, reasons: Sequence[Reason]) -> None:
        """Show why the run (under an empty name) or its tasks wait."""
        shown = [reason for reason in reasons if reason.code not in _PASSING]
        self._reasons = {name: reason.message for reason in shown for name in reason.tasks or ("",)}

    def log(self, task: str, lines: list[str], unfinished: str) -> None:
        """Queue lines of a task's log, to be drawn soon or omitted."""
        self._backlog.add(task, lines)
        if unfinished:
            self._unfinished[task] = unfinished
        else:
            self._unfinished.pop(task, None)

    def say(self, lines: list[str]) -> None:
        """Show lines with a word that is too long for the graph; the graph shows all others."""
        self._long_lines += [line for line in lines if any(len(word) >= self._out.width - 4 for word in line.split())]

    async def draw(self) -> None:
        """Draw frame after frame."""
        while True:
            shown = self._backlog.take(time.monotonic())
            region = self._region()
            if shown or self._long_lines or region != self._last:
                self._write(shown, region.split("\n"))
                self._last = region
            await asyncio.sleep(_FRAME_SECONDS)

    def _write(self, shown: Sequence[TaskLines], region: list[str]) -> None:
        """Replace the graph by lines and a new graph in one write; the cursor stays at its end."""
        width = max(1, self._out.width)
        # A terminal that became narrower has folded the lines drawn before.
        rows = sum(max(1, -(-cell_len(line) // width)) for line in self._drawn)
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        lines = [line for each in shown for line in self._lines(each)] + [printable(line) for line in self._long_lines]
        self._long_lines = []
        sys.stdout.write(f"\r{up}\x1b[J" + "".join(f"{line}\n" for line in lines) + "\n".join(region))
        sys.stdout.flush()
        self._drawn = [_SEQUENCE.sub("", line) for line in region]

    def _lines(self, shown: TaskLines) -> list[str]:
        name = self._name(shown.task)
        lines = [f"{name}{line}" for line in shown.lines]
        if shown.omitted and self._run is not None:
            command = printable(log_command(self._run, shown.task))
            lines.insert(0, f"{name}… {counted(shown.omitted, 'line')} left out: {command}")
        return lines

    def _name(self, task: str) -> str:
        """Return the task's name in its colour, the prefix of its lines."""
        if task not in self._names:
            colour = _COLOURS[len(self._names) % len(_COLOURS)]
            self._names[task] = self._rendered([Text(f"{printable(task)} | ", colour)])
        return self._names[task]

    def _region(self) -> str:
        if self._run is None:
            return ""
        width, height = self._out.width - 1, self._out.height - 1
        unfinished = list(self._unfinished.items())[: max(0, min(_UNFINISHED, height - 4))]
        lines = [_tail(task, _SEQUENCE.sub("", line).expandtabs(), width) for task, line in unfinished]
        lines += [Text(), headline(self._run, datetime.now(UTC))]
        if why := self._reasons.get("", ""):
            lines.append(Text(f"waits: {printable(why)}", style="dim"))
        for line in lines:
            line.truncate(self._room(line, width), overflow="ellipsis")
        return self._rendered(lines) + "\n" + "\n".join(self._graph(height - len(lines)))

    def _graph(self, height: int) -> list[str]:
        if self._run is None:
            return []
        width = self._out.width - 1
        waiting = {} if self._run.finished else self._reasons
        lines = graph_lines(self._run, width, datetime.now(UTC), height=height, reasons=waiting)
        lines = lines[: max(0, height)]
        for line in lines:
            line.truncate(self._room(line, width), overflow="ellipsis")
        return [self._rendered([line]) for line in lines]

    def _room(self, line: Text, width: int) -> int:
        """Return the width for a line; in ASCII, an ellipsis is three dots."""
        ascii_room = width - 2 * line.plain.count("…") - 2
        return max(1, width if self._out.encoding.lower().startswith("utf") else ascii_room)

    def _rendered(self, lines: Sequence[Text]) -> str:
        with self._out.capture() as captured:
            for line in lines:
                self._out.print(line, end="\n", soft_wrap=True)
        return captured.get().removesuffix("\n")


def _tail(task: str, line: str, width: int) -> Text:
    """Return the end of an unfinished line, in one row."""
    begin = f"{printable(task)} | "
    room = max(8, width - len(begin))
    return Text(begin + (line if len(line) <= room else f"…{line[-room + 1 :]}"))


class PlainScreen(Screen):
    """A pipe or a file: everything in lines, in order, without colours."""

    colours = False
    line_chars = LINE_CHARS

    def __init__(self) -> None:
        self._phase = ""
        self._explained: set[str] = set()
        self._title = ""

    def show(self, run: Run) -> None:
        """Print a new phase of the run; its end is printed after everything else."""
        self._title = title(run)
        phase = f"{run.phase}, paused" if run.paused_at is not None else display_word(run.phase)
        if not run.finished and self._phase != phase:
            self._phase = phase
            say(f"{self._title}: {phase}")

    def explain(self, reasons: Sequence[Reason]) -> None:
        """Print why the whole run waits, each reason once."""
        for reason in reasons:
            if not reason.tasks and reason.code not in self._explained and reason.code not in _PASSING:
                self._explained.add(reason.code)
                say(f"{self._title}: waits: {reason.message}")

    def log(self, task: str, lines: list[str], unfinished: str) -> None:
        """Print lines of a task's log; an unfinished one is printed once it ends."""
        name = printable(task)
        if lines:
            sys.stdout.write("".join(f"{name} | {line}\n" for line in lines))
            sys.stdout.flush()

    def say(self, lines: list[str]) -> None:
        """Print the state of a task."""
        for line in lines:
            say(line)

    async def draw(self) -> None:
        """Do nothing: lines are written as they come."""


@dataclass(frozen=True, slots=True)
class TaskLines:
    """Lines of a task to draw in one frame."""

    task: str
    omitted: int
    """Number of omitted lines before them."""
    lines: list[str]


@dataclass(slots=True)
class _TaskBacklog:
    lines: deque[str] = field(default_factory=deque)
    omitted: int = 0
    not_before: float = 0.0


class QueuedLines:
    """The queued lines of all tasks, in order for each task."""

    def __init__(self) -> None:
        self._held: dict[str, _TaskBacklog] = {}

    def add(self, task: str, lines: Iterable[str]) -> None:
        """Queue lines of a task; omit its oldest ones beyond HELD_LINES."""
        held = self._held.setdefault(task, _TaskBacklog())
        held.lines.extend(lines)
        while len(held.lines) > HELD_LINES:
            held.lines.popleft()
            held.omitted += 1

    def take(self, now: float) -> list[TaskLines]:
        """Take the lines for a frame at `now` (seconds, monotonic); tasks that have waited longest come first."""
        taken: list[TaskLines] = []
        room, chars = FRAME_LINES, FRAME_CHARS
        for task, held in list(self._held.items()):
            if held.not_before > now or room <= 0 or chars <= 0:
                continue
            lines: list[str] = []
            while held.lines and room > 0 and chars > 0:
                lines.append(held.lines.popleft())
                room -= 1
                chars -= len(lines[-1])
            if lines:
                taken.append(TaskLines(task, held.omitted, lines))
            held.not_before = now + PAUSE_SECONDS if held.omitted else 0.0
            held.omitted = 0
            del self._held[task]
            if held.lines or held.not_before:
                self._held[task] = held  # at the end of the queue
        return taken

    def rest(self) -> list[TaskLines]:
        """Take all remaining lines."""
        left = [TaskLines(task, held.omitted, list(held.lines)) for task, held in self._held.items() if held.lines]
        self._held.clear()
        return left
