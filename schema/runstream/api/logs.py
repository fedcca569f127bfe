"""Lines of logs, and where runs failed."""

from __future__ import annotations

from datetime import datetime

from runstream.api.answer import Answer


class LogLine(Answer, frozen=True):
    """A line of a log."""

    number: int
    """From 0."""
    offset: int
    """Where it begins in the log, in bytes."""
    time: datetime | None
    """When its first byte was written, by the clock of the executor; None if that is unknown."""
    text: str
    """Without its line end; bytes that are no UTF-8 are replaced."""
    cut: bool
    """True if the line is longer than 64 KiB, and its rest is missing here."""


class LogLines(Answer, frozen=True):
    """Successive lines of a log."""

    lines: tuple[LogLine, ...]
    next: int | None
    """Number of the line after them; None if the log has no further line now."""


class Failure(Answer, frozen=True):
    """A failed task."""

    task: str
    """Its name."""
    task_id: str
    attempt: int
    step: int | None
    """The failed step, or else the one that started last; None for the setup, or if nothing started."""
    step_name: str
    """`setup` for the setup; empty if nothing started."""
    exit_status: int | None
    fail_error: str
    """Why it failed, when the cause is not a step."""
    lines: tuple[LogLine, ...] | None
    """The last 50 lines of that step's log; None if there is no log."""


class Failures(Answer, frozen=True):
    """The failed tasks of a run."""

    failures: tuple[Failure, ...]
    """In the order of their names, at most 100."""
    more: bool
    """True if the run has further failed tasks."""
