"""Retention: when an ended run goes, and when its logs and archives go before it (rules retention-1 and retention-2).

An age counts from the end of the run. It counts from a later time for runs that ended before the service knew
retention, or before their log was imported: neither an upgrade nor an import removes anything at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from msgspec import Struct

from runstream.events.run import DataKind, RunDataRemoved, RunDeleted, RunEvent


class Policy(Struct, frozen=True):
    """What is kept of the runs of a group root; None keeps everything."""

    keep: int | None = None
    """Number of ended runs."""
    runs: timedelta | None = None
    """Age of ended runs."""
    logs: timedelta | None = None
    archives: timedelta | None = None

    def __bool__(self) -> bool:
        return self != _EVERYTHING


_EVERYTHING = Policy()


class EndedRun(Struct, frozen=True):
    """An archived run, as retention sees it."""

    ended_at: datetime
    surplus: bool
    """True if `keep` later runs of its group root have ended."""
    holds_logs: bool
    holds_archives: bool


def decide_retention(run: EndedRun, policy: Policy, since: datetime, now: datetime) -> tuple[RunEvent, ...]:
    """Delete the run, or remove its logs or archives, if the policy asks for it by now; otherwise do nothing.

    Ages count from `since` at the earliest.
    """
    if policy.keep is not None and run.surplus:
        return (RunDeleted(f"runs.keep {policy.keep}"),)
    if policy.runs is not None and _start(run, since) + policy.runs <= now:
        return (RunDeleted(f"runs.age {age_text(policy.runs)}"),)
    return tuple(
        RunDataRemoved((kind,), f"{kind} {age_text(age)}")
        for kind, age in _data(run, policy)
        if _start(run, since) + age <= now
    )


def next_retention(run: EndedRun, policy: Policy, since: datetime) -> datetime | None:
    """Return when the policy asks for something next, by age; None for never."""
    ages = [age for _, age in _data(run, policy)]
    if policy.runs is not None:
        ages.append(policy.runs)
    try:
        return _start(run, since) + min(ages) if ages else None
    except OverflowError:  # later than the last datetime
        return None


def _start(run: EndedRun, since: datetime) -> datetime:
    return max(run.ended_at, since)


def _data(run: EndedRun, policy: Policy) -> Iterator[tuple[DataKind, timedelta]]:
    if run.holds_logs and policy.logs is not None:
        yield "logs", policy.logs
    if run.holds_archives and policy.archives is not None:
        yield "archives", policy.archives


_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}


def age_text(age: timedelta) -> str:
    """Return the text of an age in its largest whole unit: `90d`, `36h`, `1.5s`."""
    for unit, size in _UNITS.items():
        if age % size == timedelta(0):
            return f"{age // size}{unit}"
    return f"{age.total_seconds():g}s"
