"""How full each executor is, and how much of them each group root has: the open tasks of the partitions that this
process schedules, what it has just given out, and what is said of all other partitions: by the processes that
schedule them while anybody waits, else by the executors.

What other processes give out at the same moment is not known here, so a limit may be passed by a few for a moment: the
executor keeps such tasks waiting, and it is the executor that holds the limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from runstream.domain.executor import Offer, choose_executor
from runstream.scheduler.lines import Ask
from runstream.scheduler.others import Others

_UNLIMITED = 1_000_000


class Open(NamedTuple):
    """An open executor task: where it is, and whose share it counts for."""

    executor_id: str
    root: str


class Capacity:
    """Counts open executor tasks; shared by the workers of a process."""

    def __init__(self, offers: Mapping[str, Offer]) -> None:
        """`offers` are those of the executors that are alive, and change as they do."""
        self.offers = offers
        self.others = Others()
        self._open: dict[int, dict[str, Open]] = {}
        self._loads: Counter[str] = Counter()
        self._shares: Counter[str] = Counter()

    def own(self, partition: int) -> None:
        """From now on this process counts the partition itself."""
        self._open[partition] = {}
        self.others.own(partition)

    def disown(self, partition: int) -> None:
        """Another process counts the partition."""
        for task_id in list(self._open.get(partition, {})):
            self.closed(partition, task_id)
        self._open.pop(partition, None)

    def opened(self, partition: int, task_id: str, executor_id: str, root: str) -> bool:
        """An executor task is at this executor, or is about to be; whether that was not counted yet."""
        known = self._open[partition].get(task_id)
        if known is not None and known.executor_id == executor_id:
            return False
        self.closed(partition, task_id)
        self._open[partition][task_id] = Open(executor_id, root)
        self._loads[executor_id] += 1
        self._shares[root] += 1
        return True

    def closed(self, partition: int, task_id: str) -> Open | None:
        """An executor task ended, or was not assigned after all; what was counted for it."""
        known = self._open.get(partition, {}).pop(task_id, None)
        if known is not None:
            _less(self._loads, known.executor_id)
            _less(self._shares, known.root)
        return known

    def is_at(self, partition: int, task_id: str, executor_id: str) -> bool:
        """Whether the task is counted at this executor."""
        known = self._open.get(partition, {}).get(task_id)
        return known is not None and known.executor_id == executor_id

    def load(self, offer: Offer) -> int:
        """How many open tasks the executor has, as far as it is known here."""
        others = self.others.partitions
        counted: Collection[int] = others.union(self._open) if others else self._open
        elsewhere = sum(n for partition, n in offer.open_tasks.items() if int(partition) not in counted)
        return self._loads[offer.executor_id] + elsewhere + self.others.loads.get(offer.executor_id, 0)

    @property
    def partitions(self) -> tuple[int, ...]:
        """Those that this process counts itself."""
        return tuple(self._open)

    @property
    def loads(self) -> Mapping[str, int]:
        """How many open tasks of these partitions each executor has."""
        return self._loads

    def share(self, root: str) -> int:
        """How many tasks of this group root executors have; the root's partition is one of this process."""
        return self._shares[root]

    def free(self) -> int:
        """How many more tasks all executors together could take."""
        return sum(self._room(offer) for offer in self.offers.values())

    def room(self, executor_id: str) -> int:
        """How many more tasks this executor could take; none when it is not there."""
        offer = self.offers.get(executor_id)
        return 0 if offer is None else self._room(offer)

    def _room(self, offer: Offer) -> int:
        return max(offer.active_tasks_limit - self.load(offer), 0) if offer.active_tasks_limit else _UNLIMITED

    def choose(self, ask: Ask, among: Mapping[str, Offer] | None = None) -> str | None:
        """The executor that is to take this task, or None; of all, or of those that are given."""
        offers = self.offers if among is None else among
        loads = {offer.executor_id: self.load(offer) for offer in offers.values()}
        return choose_executor(offers, loads, ask.demand, ask.failed_at)


def _less(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
