"""Lines that wait to be drawn: a terminal shows some thousand lines a second, a task can write a hundred times that.

What cannot be shown in time is left out, and its lines counted, so that what is drawn is always of now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

HELD_LINES = 500
"""Lines of a task that wait; of more, the oldest are left out."""
FRAME_LINES = 500
FRAME_CHARS = 64 << 10
"""What is taken for a frame at most, in lines and characters; the last line may be longer."""
PAUSE_SECONDS = 1.0
"""How long a task whose lines were left out is not shown again."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Lines of a task to draw now."""

    task: str
    left_out: int
    """Number of lines before them that are not drawn."""
    lines: list[str]


@dataclass(slots=True)
class _Held:
    lines: deque[str] = field(default_factory=deque)
    left_out: int = 0
    not_before: float = 0.0


class Backlog:
    """The lines of all tasks, each task's in order."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def add(self, task: str, lines: Iterable[str]) -> None:
        """Add lines of a task."""
        held = self._held.setdefault(task, _Held())
        held.lines.extend(lines)
        while len(held.lines) > HELD_LINES:
            held.lines.popleft()
            held.left_out += 1

    def take(self, now: float) -> list[Shown]:
        """Return what to draw at a time (in seconds, monotonic); tasks that were waiting for longest come first."""
        taken: list[Shown] = []
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
                taken.append(Shown(task, held.left_out, lines))
            held.not_before = now + PAUSE_SECONDS if held.left_out else 0.0
            held.left_out = 0
            del self._held[task]
            if held.lines or held.not_before:
                self._held[task] = held  # behind the others
        return taken

    def rest(self) -> list[Shown]:
        """Return everything that is left."""
        left = [Shown(task, held.left_out, list(held.lines)) for task, held in self._held.items() if held.lines]
        self._held.clear()
        return left
