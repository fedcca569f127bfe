"""The clocks of a run: its timeout, and the earliest start of the next attempts at its tasks.

The clocks of a paused run stop: its timeout counts from its start without its pauses, and a pause postpones the
remaining wait for an attempt (`runstream.domain.run`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from runstream.domain.run import RunState
from runstream.events.run import RunTimedOut
from runstream.events.run_config import RunConfig
from runstream.run_states import RunPhase


def decide_timeout(run: RunState, config: RunConfig, at: datetime) -> list[RunTimedOut]:
    """Time the run out; do nothing before its timeout, or if the run is ending already."""
    return [RunTimedOut()] if out_of_time(run, config, at) and _can_time_out(run) else []


def out_of_time(run: RunState, config: RunConfig, at: datetime) -> bool:
    """Return whether the run has exceeded its timeout."""
    runs_out = _runs_out(run, config)
    return runs_out is not None and runs_out <= at


def may_begin(run: RunState, name: str, at: datetime) -> bool:
    """Return whether the wait before the next attempt at this task is over."""
    not_before = run.tasks[name].not_before
    return not_before is None or not_before <= at


def next_due(run: RunState, config: RunConfig) -> datetime | None:
    """Return the next time at which a decision is due without any event; it may be past. None if the run waits for no
    time."""
    return min(_dues(run, config), default=None)


def _dues(run: RunState, config: RunConfig) -> Iterator[datetime]:
    if run.phase is not RunPhase.RUNNING or run.paused_at is not None:
        return
    if _can_time_out(run) and (runs_out := _runs_out(run, config)) is not None:
        yield runs_out
    for task in run.tasks.values():
        if task.not_before is not None and task.between_attempts:
            yield task.not_before


def _runs_out(run: RunState, config: RunConfig) -> datetime | None:
    interval = config.run_timeout_interval
    if not interval or run.start_time is None or run.paused_at is not None:
        return None
    return run.start_time + timedelta(microseconds=(interval + run.paused_for) / 1000)


def _can_time_out(run: RunState) -> bool:
    return run.phase is RunPhase.RUNNING and not run.stop and not all(task.finished for task in run.tasks.values())
