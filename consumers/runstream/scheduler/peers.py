"""The reports of the other scheduler processes: their pending tasks, and the slots that they use at each executor.

Each process reports all of it again when something changed, so the next report makes up for a lost one. All processes
order pending tasks in the same way, and each takes slots for its own tasks only. So once they have each other's
reports, exactly one of them takes a free slot. A moment of disagreement is harmless: of two processes that take the
same slot, the executor keeps the second task waiting; two that leave it to each other learn of it with the next
reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from runstream.domain.executor import Demand, Offer, fits

Usage = tuple[int, int]
"""A group root's number of tasks at executors (its share), and the number under which it was last served."""
QueuePlace = tuple[int, int, int]
"""A group root's usage, and the sequence of its oldest run with a task in the queue."""
Rank = tuple[int, int, int, int, str]
Order = Callable[[int, QueuePlace, str], Rank]
"""Ranks a group root by priority and place; the lowest rank is served next."""


def by_priority(priority: int, place: QueuePlace, root: str) -> Rank:
    """Rank by priority, the highest first."""
    return -priority, *place, root


def by_share(priority: int, place: QueuePlace, root: str) -> Rank:
    """Rank by share, the smallest first; priority decides only among equals."""
    share, served, sequence = place
    return share, served, -priority, sequence, root


# The names of the fields of both classes are part of what processes send each other.


@dataclass(frozen=True, slots=True)
class Claim:
    """Pending tasks of one group root in one queue of a peer."""

    demand: Demand
    priority: int
    root: str
    place: QueuePlace
    count: int


@dataclass(frozen=True, slots=True)
class PeerReport:
    """The report of a process to its peers."""

    partitions: tuple[int, ...]
    """The partitions that it schedules."""
    claims: tuple[Claim, ...] = ()
    """Its pending tasks: the next ones of each queue."""
    loads: Mapping[str, int] = field(default_factory=dict)
    """By executor: how many tasks of these partitions it has or is about to get."""
    given: Mapping[str, int] = field(default_factory=dict)
    """By executor: how many of its slots went to pending tasks, modulo `fair_queue.BY_SHARE_EVERY`."""
    serving: int = 0
    """The highest number under which a root was served, as far as the process knows."""


class PeerReports:
    """The last report of each peer."""

    def __init__(self) -> None:
        self._reports: dict[str, PeerReport] = {}
        self.partitions: frozenset[int] = frozenset()
        """The partitions that `loads` covers."""
        self.loads: Mapping[str, int] = {}
        self.given: Mapping[str, int] = {}
        self.claims: tuple[Claim, ...] = ()

    @property
    def known(self) -> Collection[str]:
        """The processes that have a report."""
        return self._reports.keys()

    def receive(self, process: str, report: PeerReport | None) -> None:
        """Replace the process's report; None when it has nothing to report, or is gone."""
        if report is None:
            self._reports.pop(process, None)
        else:
            self._reports[process] = report
        self._add_up()

    def own(self, partition: int) -> None:
        """Drop reports that cover the partition, which this process schedules now: they are out of date."""
        for process in [process for process, report in self._reports.items() if partition in report.partitions]:
            self.receive(process, None)

    def contention(self, offer: Offer, serving: int) -> Contention | None:
        """Return the peers' claims on this executor; None if there are none, or if it has no limit."""
        if not self.claims or not offer.active_tasks_limit:
            return None
        rivals = [claim for claim in self.claims if fits(offer, claim.demand)]
        return Contention(rivals, serving) if rivals else None

    def ahead_of(self, demand: Demand, priority: int, place: QueuePlace, root: str) -> int:
        """Count the peers' tasks with the same demand that are served before this one."""
        own = by_priority(priority, place, root)
        rivals = (claim for claim in self.claims if claim.demand == demand)
        return sum(one.count for one in rivals if by_priority(one.priority, one.place, one.root) < own)

    def _add_up(self) -> None:
        reports = self._reports.values()
        self.partitions = frozenset(partition for report in reports for partition in report.partitions)
        self.loads = _sums(report.loads for report in reports)
        self.given = _sums(report.given for report in reports)
        self.claims = tuple(claim for report in reports for claim in report.claims)


class Contention:
    """The peers' claims on one executor, while its free slots are shared out in a dry run."""

    def __init__(self, claims: Iterable[Claim], serving: int) -> None:
        """`serving` is the highest number under which a root was served."""
        self._claims = list(claims)
        self._serving = serving

    def yields(self, order: Order, own: Rank) -> bool:
        """Return whether a peer's claim comes before `own`; then count the slot as given to it.

        The peer itself works out the same and takes the slot. We only leave it free, so that nothing has to be agreed
        on between processes, and a peer that dies costs no more than the time until its report is forgotten.
        """
        first = min(self._claims, key=lambda one: order(one.priority, one.place, one.root), default=None)
        if first is None or order(first.priority, first.place, first.root) > own:
            return False
        self._serving += 1
        self._claims = [self._after(first, claim) for claim in self._claims if claim is not first or claim.count > 1]
        return True

    def _after(self, served: Claim, claim: Claim) -> Claim:
        if claim.root != served.root:
            return claim
        share, _, sequence = claim.place
        return replace(claim, place=(share + 1, self._serving, sequence), count=claim.count - (claim is served))


def _sums(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total
