"""Tasks that wait for an executor, in lines: those of a line have the same priority and require the same.

So it is one question for a line, not for each of its tasks, whether an executor would do. In a line it is the turn
of the group root with the smallest share, then of the one that got something the longest ago, then of the oldest run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from runstream.domain.executor import Demand
from runstream.scheduler.ranking import Ranking

Standing = tuple[int, int]
"""Of a group root: how many of its tasks executors have (its share), and when it got the last of them."""
Place = tuple[int, int, int]
"""Of a group root in a line: its standing, and the sequence of its oldest run that waits there."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A task that wants an executor."""

    id: str
    """Of the executor task that it will be."""
    partition: int
    run_id: str
    task: str
    root: str
    """The root of its run's group: whose share it counts for."""
    priority: int
    sequence: int
    """Of its run: older runs have smaller ones, in all partitions."""
    level: int
    demand: Demand
    failed_at: tuple[str, ...] = ()
    """Of each failed attempt at the task, at which executor it was."""


class Line:
    """Tasks of the same priority that require the same."""

    def __init__(self, demand: Demand, priority: int, standing: Callable[[str], Standing]) -> None:
        """`standing(root)` says how well off a group root is at present."""
        self.demand = demand
        self.priority = priority
        self._standing = standing
        self._asks: dict[str, Ask] = {}
        self._of_root: dict[str, list[tuple[int, int, str, str]]] = {}
        """For each root a heap, by sequence, level and name; an entry that `_asks` does not confirm is left over."""
        self._roots: Ranking[Place] = Ranking()

    def __len__(self) -> int:
        return len(self._asks)

    def add(self, ask: Ask) -> None:
        """Let a task wait."""
        self._asks[ask.id] = ask
        heapq.heappush(self._of_root.setdefault(ask.root, []), (ask.sequence, ask.level, ask.task, ask.id))
        self.rank(ask.root)

    def remove(self, ask: Ask) -> None:
        """The task waits no more."""
        del self._asks[ask.id]
        self.rank(ask.root)

    def rank(self, root: str) -> None:
        """The root's standing or its first task has changed, perhaps."""
        waiting = self._of_root.get(root, [])
        while waiting and waiting[0][3] not in self._asks:
            heapq.heappop(waiting)
        if waiting:
            self._roots.set(root, (*self._standing(root), waiting[0][0]))
        else:
            self._of_root.pop(root, None)
            self._roots.set(root, None)

    def first(self) -> tuple[Place, Ask]:
        """Whose turn it is, with the standing and the sequence that make it so. Raises LookupError when it is empty."""
        first = self._roots.first
        if first is None:
            raise LookupError("nobody waits in this line")
        rank, root = first
        return rank, self._asks[self._of_root[root][0][3]]

    def next_roots(self, count: int) -> list[tuple[Place, str]]:
        """The first so many group roots whose turn it is."""
        return self._roots.lowest(count)

    def before(self, ask: Ask) -> int:
        """How many tasks of the line come before this one as things are now; looks at all of them."""
        own = self._place(ask)
        return sum(1 for other in self._asks.values() if self._place(other) < own)

    def _place(self, ask: Ask) -> tuple[int, int, int, int, str]:
        return *self._standing(ask.root), ask.sequence, ask.level, ask.task
