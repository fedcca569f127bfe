"""What a run does about its place in its group (rules group-2 to group-6): it starts, gives way, or waits.

Runs of a group run one at a time, in the order of the log. Beyond that, what a new run does about earlier runs is
said by its policy, and is meant for runs of its own name: a file may have a run that a newer one replaces beside one
that nothing may interrupt. Each run decides about itself alone, so a decision is refused by the log when somebody else
was there before, and two schedulers that have read different lengths of it do no harm.
"""

from __future__ import annotations

from msgspec import Struct

from runstream.counting import counted
from runstream.domain.run import Run, RunPhase
from runstream.events.run import RunCancelled, RunEvent, RunStarted, RunStopRequested
from runstream.events.run_config import Concurrency, GroupPolicy
from runstream.names import numbered_name


class Neighbour(Struct, frozen=True, gc=False):
    """Another run of the group that has not ended."""

    id: str
    counter: int
    policy: GroupPolicy


class Place(Struct, frozen=True, gc=False):
    """Where a run stands among the runs of its group that have not ended."""

    first: Neighbour
    """Whose turn it is: it runs, or will run next. It may be the run itself."""
    earlier: Neighbour | None
    """The first of its name, if that is another one."""
    waiting: int
    """How many earlier runs of its name wait: all but the one whose turn it is."""
    replaced_by: Neighbour | None
    """The last run of its name that came later and takes the place of those that wait."""
    stopped_by: Neighbour | None
    """The last run of its name that came later and stops the one that runs."""


def decide_in_group(run: Run, concurrency: Concurrency, place: Place) -> tuple[RunEvent, ...]:
    """What follows for the run from its place: nothing, its start, or its end."""
    if run.phase is RunPhase.RUNNING:
        return _give_up(run, place)
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


def _give_up(run: Run, place: Place) -> tuple[RunEvent, ...]:
    if run.stop or place.stopped_by is None:
        return ()
    return (RunStopRequested(f"{_name(run, place.stopped_by)} took its place (concurrency {place.stopped_by.policy})"),)


def _name(run: Run, other: Neighbour) -> str:
    """Return how another run of the run's group is called."""
    return f"run {numbered_name(run.group, other.counter, other.id)}"
