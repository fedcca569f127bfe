"""What the passing of time does to a run: its time-out, and when the next attempts at its tasks may begin.

The clocks of a paused run stand still: its time-out counts from its start without its pauses, and what is left of
the wait for an attempt is put off by a pause (`runstream.domain.run`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from runstream.domain.run import Run, RunPhase
from runstream.events.run import RunTimedOut
from runstream.events.run_config import RunConfig


def decide_timeout(run: Run, config: RunConfig, at: datetime) -> list[RunTimedOut]:
    """Its time is up: nothing, while it is not, or when the run ends already."""
    return [RunTimedOut()] if out_of_time(run, config, at) and _can_time_out(run) else []


def out_of_time(run: Run, config: RunConfig, at: datetime) -> bool:
    """Whether it has taken as long as it may, or longer."""
    runs_out = _runs_out(run, config)
    return runs_out is not None and runs_out <= at


def may_begin(run: Run, name: str, at: datetime) -> bool:
    """Whether the next attempt at this task has not to wait any more."""
    not_before = run.tasks[name].not_before
    return not_before is None or not_before <= at


def next_due(run: Run, config: RunConfig) -> datetime | None:
    """When something follows from the time alone; it may have passed. None for a run that waits for no time."""
    return min(_dues(run, config), default=None)


def _dues(run: Run, config: RunConfig) -> Iterator[datetime]:
    if run.phase is not RunPhase.RUNNING or run.paused_at is not None:
        return
    if _can_time_out(run) and (runs_out := _runs_out(run, config)) is not None:
        yield runs_out
    for task in run.tasks.values():
        if task.not_before is not None and task.between_attempts:
            yield task.not_before


def _runs_out(run: Run, config: RunConfig) -> datetime | None:
    interval = config.run_timeout_interval
    if not interval or run.start_time is None or run.paused_at is not None:
        return None
    return run.start_time + timedelta(microseconds=(interval + run.paused_for) / 1000)


def _can_time_out(run: Run) -> bool:
    return run.phase is RunPhase.RUNNING and not run.stop and not all(task.finished for task in run.tasks.values())
