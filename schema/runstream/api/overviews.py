"""What many runs show together: counts, groups, flaky tasks, and why a run waits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from runstream.api.answer import Answer
from runstream.api.runs import RunSummary


class Count(Answer, frozen=True):
    """A number of runs, counted up to a bound."""

    count: int
    more: bool
    """True when counting stopped there: there may be more."""


class RunCounts(Answer, frozen=True):
    """The runs of a list by phase and by result, whatever phases and results the list is of."""

    phases: dict[str, Count]
    results: dict[str, Count]


class Page(Answer, frozen=True):
    """A page of runs."""

    runs: tuple[RunSummary, ...]
    """Up to the limit; a filter that finds little returns fewer, although there is a next page."""
    next_start: int | None
    """The `start` of the next page; None on the last page."""
    cursor: str
    """Requests the next page of this list; empty on the last page."""
    counts: RunCounts | None = None
    """None unless the request asks for them."""
    tasks: Mapping[str, Mapping[str, int]] | None = None
    """By the id of the run: how many tasks have each status; None unless the request asks for them."""


class QueuedRun(Answer, frozen=True):
    """An unfinished run of a group, and what is before it."""

    run: RunSummary
    waits_for: str
    """The id of the run that has to end first; empty for the first run of the group."""
    ahead: int
    """Number of unfinished runs before it."""


class RunTimes(Answer, frozen=True):
    """A finished run, and how long it waited and took, in seconds."""

    run: RunSummary
    waited: float | None
    took: float | None


class GroupView(Answer, frozen=True):
    """The queue of a group, and its last finished runs."""

    group: str
    queue: tuple[QueuedRun, ...]
    """The unfinished runs, in the order in which they run."""
    more: bool
    """Whether more wait behind those."""
    last: tuple[RunTimes, ...]
    """The last 30 finished runs, the latest first."""
    median_waited: float | None
    median_took: float | None
    """Of those, in seconds; None without one."""


class FlakyRun(Answer, frozen=True):
    """A run of a flaky task."""

    id: str
    counter: int
    group: str


class FlakyOccurrence(Answer, frozen=True):
    """A task that failed, and then passed with the same commit and run config."""

    commit: str
    """The hash of the commit; empty for a run without one."""
    run_config_id: str
    failed: FlakyRun
    passed: FlakyRun
    """The same run, if a later attempt passed."""
    failures: int
    """Failed attempts of the run that failed, without those whose executor was lost."""
    end_time: datetime | None
    """When the task of the run that failed ended."""


class FlakyTask(Answer, frozen=True):
    """A task that is flaky in the runs of a name."""

    group: str
    """The project or user: the first two elements of its runs' group."""
    name: str
    """Of the runs."""
    task: str
    count: int
    """How often, among the failures that were looked at."""
    latest: tuple[FlakyOccurrence, ...]
    """The last five."""


class FlakyList(Answer, frozen=True):
    """Flaky tasks, the most frequent first."""

    tasks: tuple[FlakyTask, ...]
    failures: int
    """Number of failed tasks that were looked at, the latest ones."""
    more: bool
    """Whether there may be earlier failures."""


class Reason(Answer, frozen=True):
    """One reason why a run waits."""

    code: str
    """group, dependency, executorsFull …"""
    message: str
    tasks: tuple[str, ...]
    """Names of the tasks that it concerns; none when it concerns the whole run."""
    details: dict[str, Any]


class Why(Answer, frozen=True):
    """Why a run waits; phase and result are empty where they are unknown."""

    run: str
    phase: str
    result: str
    reasons: tuple[Reason, ...]
    omitted: int = 0
    """Number of further reasons."""
