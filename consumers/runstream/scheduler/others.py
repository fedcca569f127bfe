"""What the other scheduler processes say: who waits there, and how much of each executor they have given out.

Each process says all of it anew when something changed, so what was not heard is made good by what is heard next. All
order those who wait in the same way, and each takes room for its own alone. So once they have heard each other,
exactly one of them takes the room whose turn is next. What differs for a moment does no harm: two that take the same
room are one too many at an executor, which keeps the second waiting; two that leave it to each other hear of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from runstream.domain.executor import Demand, Offer, fits
from runstream.scheduler.lines import Place

Rank = tuple[int, int, int, int, str]
Order = Callable[[int, Place, str], Rank]
"""From a priority, a place in a line, and the group root that is there: the lowest is the next."""


def by_priority(priority: int, place: Place, root: str) -> Rank:
    """The higher priority first."""
    return -priority, *place, root


def by_share(priority: int, place: Place, root: str) -> Rank:
    """Who has the least first, whatever the priorities."""
    share, served, sequence = place
    return share, served, -priority, sequence, root


@dataclass(frozen=True, slots=True)
class Claim:
    """Tasks of a group root that wait in a line of a process."""

    demand: Demand
    priority: int
    root: str
    place: Place
    """Of the root in the line: how many tasks it has at executors, when it got the last, its oldest run that waits."""
    count: int


@dataclass(frozen=True, slots=True)
class Notice:
    """What one process says of itself."""

    partitions: tuple[int, ...]
    """Those that it schedules."""
    claims: tuple[Claim, ...] = ()
    """Who waits there: of each line those that are next."""
    loads: Mapping[str, int] = field(default_factory=dict)
    """Of each executor: how many tasks of these partitions it has, or is about to get."""
    given: Mapping[str, int] = field(default_factory=dict)
    """Of each executor: how often its room was given to one that waited; only the remainder matters."""
    serving: int = 0
    """The highest number under which anybody was served, as far as the process knows."""


class Others:
    """The last notice of each other process."""

    def __init__(self) -> None:
        self._notices: dict[str, Notice] = {}
        self.partitions: frozenset[int] = frozenset()
        """Those of which `loads` tells."""
        self.loads: Mapping[str, int] = {}
        self.given: Mapping[str, int] = {}
        self.claims: tuple[Claim, ...] = ()

    @property
    def known(self) -> Collection[str]:
        """The processes of which there is a notice."""
        return self._notices.keys()

    def hear(self, process: str, notice: Notice | None) -> None:
        """What the process says now; None when it says nothing, or is there no longer."""
        if notice is None:
            self._notices.pop(process, None)
        else:
            self._notices[process] = notice
        self._add_up()

    def own(self, partition: int) -> None:
        """The partition is ours: what others say of it is out of date, until they say it anew."""
        for process in [process for process, notice in self._notices.items() if partition in notice.partitions]:
            self.hear(process, None)

    def contest(self, offer: Offer, serving: int) -> Contest | None:
        """Those who may come before us at this executor; None when there is nobody, or room for all."""
        if not self.claims or not offer.active_tasks_limit:
            return None
        rivals = [claim for claim in self.claims if fits(offer, claim.demand)]
        return Contest(rivals, serving) if rivals else None

    def before(self, demand: Demand, priority: int, place: Place, root: str) -> int:
        """How many tasks of other processes that require the same come before this one."""
        own = by_priority(priority, place, root)
        rivals = (claim for claim in self.claims if claim.demand == demand)
        return sum(one.count for one in rivals if by_priority(one.priority, one.place, one.root) < own)

    def _add_up(self) -> None:
        notices = self._notices.values()
        self.partitions = frozenset(partition for notice in notices for partition in notice.partitions)
        self.loads = _sums(notice.loads for notice in notices)
        self.given = _sums(notice.given for notice in notices)
        self.claims = tuple(claim for notice in notices for claim in notice.claims)


class Contest:
    """The other processes' tasks that want the room of one executor, as it is given to them in thought."""

    def __init__(self, claims: Iterable[Claim], serving: int) -> None:
        """`serving` is the highest number under which anybody was served."""
        self._claims = list(claims)
        self._serving = serving

    def leave(self, order: Order, own: Rank) -> bool:
        """Whether it is the turn of another process before our own; then the room counts as given to it."""
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
