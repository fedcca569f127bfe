"""Where a run is watched: on a terminal a graph that stays below the logs, elsewhere plain lines in order."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from runstream.cli.graph import RunGraph, detail, headline, ordered, title, word_for
from runstream.cli.output import STYLES, console, lasted
from runstream.client import Run

_COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")


class Screen(Protocol):
    """Shows a run and the lines of its logs."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, run: Run) -> None:
        """The run as it is now."""
        ...

    def log(self, task: str, lines: list[str]) -> None:
        """Lines that a task wrote."""
        ...


def screen() -> Screen:
    """The screen that fits where the output goes."""
    out = console()
    return LiveScreen(out) if out.is_terminal and not out.is_dumb_terminal else PlainScreen(out)


class LiveScreen:
    """A terminal: logs scroll, the graph stays below them."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._live = Live(console=out, refresh_per_second=8)
        self._colours: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, run: Run) -> None:
        """The run as it is now."""
        self._live.update(Group(Text(), RunGraph(run)))

    def log(self, task: str, lines: list[str]) -> None:
        """Lines that a task wrote, in its colour; colours that the lines have stay."""
        colour = self._colours.setdefault(task, _COLOURS[len(self._colours) % len(_COLOURS)])
        texts = [Text.assemble((f"{task} | ", colour), Text.from_ansi(line)) for line in lines]
        self._out.print(Group(*texts))


class PlainScreen:
    """A pipe or a file: a line whenever something changes."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._said: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return

    def show(self, run: Run) -> None:
        """What has changed since the last time."""
        self._say(run.id, f"{title(run)}: {headline(run).plain.partition('  ')[2].partition('  ')[0]}")
        for task in ordered(run):
            word = word_for(task)
            if word == "waiting":
                continue
            parts = [f"{title(run)}: {task.name}: {word}"]
            if task.end_time and task.start_time:
                parts.append(f"after {lasted(task.start_time, task.end_time)}")
            if (task.status == "failed" or task.waiting_approval or word == "tried again") and detail(run, task):
                parts.append(f"({detail(run, task)})")
            self._say(task.id, " ".join(parts))

    def log(self, task: str, lines: list[str]) -> None:
        """Lines that a task wrote, without their colours."""
        for line in lines:
            self._out.out(f"{task} | {Text.from_ansi(line).plain}", style=None, highlight=False)

    def _say(self, key: str, line: str) -> None:
        if self._said.get(key) != line:
            self._said[key] = line
            style = next((STYLES[word] for word in line.split() if word in STYLES), None)
            self._out.out(line, style=style, highlight=False)
