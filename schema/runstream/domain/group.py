"""Starts, cancels and stops runs by their place in their group (rules group-2 to group-6).

Runs of a group run one at a time, in the order of the log. The concurrency policy of a new run affects earlier runs of
its own name only: a file may have one run that newer ones replace, and another that is never interrupted. Each run is
decided on its own, by a commit of that run. So the log refuses a decision if another commit of the run came first, and
two schedulers that have read the log up to different positions do no harm.
"""

from __future__ import annotations

from msgspec import Struct

from runstream.counting import counted
from runstream.domain.run import RunState
from runstream.events.run import RunCancelled, RunEvent, RunStarted, RunStopRequested
from runstream.events.run_config import Concurrency, GroupPolicy
from runstream.names import numbered_name
from runstream.run_states import RunPhase


class Neighbour(Struct, frozen=True, gc=False):
    """Another run of the group that has not ended."""

    id: str
    counter: int
    policy: GroupPolicy


class Place(Struct, frozen=True, gc=False):
    """The place of a run among the unfinished runs of its group."""

    first: Neighbour
    """The first unfinished run, which runs now or next. It may be the run itself."""
    earlier: Neighbour | None
    """The first unfinished run of its name, if that is another one."""
    waiting: int
    """Number of earlier runs of its name that wait, without the first of the group."""
    replaced_by: Neighbour | None
    """The last later run of its name that replaces waiting ones."""
    stopped_by: Neighbour | None
    """The last later run of its name that stops the running one."""


def decide_in_group(run: RunState, concurrency: Concurrency, place: Place) -> tuple[RunEvent, ...]:
    """Start, cancel or stop the run, as its place requires; otherwise do nothing."""
    if run.phase is RunPhase.RUNNING:
        return _stop_superseded(run, place)
    if run.phase is not RunPhase.QUEUED:
        return ()
    if place.replaced_by is not None:
        return (
            RunCancelled(f"{_name(run, place.replaced_by)} took its place (concurrency {place.replaced_by.policy})"),
        )
    if concurrency.policy == "skip" and place.earlier is not None:
        return (RunCancelled(f"{_name(run, place.earlier)} has not ended (concurrency skip)"),)
    if 0 < concurrency.max_waiting <= place.waiting:
        waiting = f"{counted(place.waiting, 'run')} wait{'s' if place.waiting == 1 else ''}"
        return (
            RunCancelled(f"{waiting} behind {_name(run, place.first)} already (max_waiting {concurrency.max_waiting})"),
        )
    return (RunStarted(),) if place.first.id == run.id and run.paused_at is None else ()


def _stop_superseded(run: RunState, place: Place) -> tuple[RunEvent, ...]:
    if run.stop or place.stopped_by is None:
        return ()
    return (RunStopRequested(f"{_name(run, place.stopped_by)} took its place (concurrency {place.stopped_by.policy})"),)


def _name(run: RunState, other: Neighbour) -> str:
    """Return the short name of another run of the run's group."""
    return f"run {numbered_name(run.group, other.counter, other.id)}"
