"""The load of each executor, and the number of tasks that each group root has at executors.

It adds up the open tasks of this process's partitions, the slots that it has just given out, and the rest: the loads
that peers report for their partitions while tasks are pending, else those that the executors themselves report.

Slots that peers give out at the same moment are unknown here, so a limit may be exceeded briefly. That is harmless: the
executor enforces its limit, and keeps such tasks waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from runstream.domain.executor import Demand, Offer, choose_executor
from runstream.scheduler.peers import PeerReports

_UNLIMITED = 1_000_000


class OpenTask(NamedTuple):
    """An open executor task: its executor, and the group root whose share it counts for."""

    executor_id: str
    root: str


class Capacity:
    """The count of open executor tasks; shared by the workers of a process."""

    def __init__(self, offers: Mapping[str, Offer]) -> None:
        """`offers` are the live executors'; the mapping changes as they do."""
        self.offers = offers
        self.peers = PeerReports()
        self._open: dict[int, dict[str, OpenTask]] = {}
        self._loads: Counter[str] = Counter()
        self._shares: Counter[str] = Counter()

    def own(self, partition: int) -> None:
        """Start to count the partition's tasks here."""
        self._open[partition] = {}
        self.peers.own(partition)

    def disown(self, partition: int) -> None:
        """Stop counting the partition's tasks: another process does."""
        for task_id in list(self._open.get(partition, {})):
            self.closed(partition, task_id)
        self._open.pop(partition, None)

    def opened(self, partition: int, task_id: str, executor_id: str, root: str) -> bool:
        """Count a task that is, or is about to be, at this executor; return False if it was counted already."""
        known = self._open[partition].get(task_id)
        if known is not None and known.executor_id == executor_id:
            return False
        self.closed(partition, task_id)
        self._open[partition][task_id] = OpenTask(executor_id, root)
        self._loads[executor_id] += 1
        self._shares[root] += 1
        return True

    def closed(self, partition: int, task_id: str) -> OpenTask | None:
        """Stop counting a task that ended, or was not assigned; return what was counted."""
        known = self._open.get(partition, {}).pop(task_id, None)
        if known is not None:
            _decrement(self._loads, known.executor_id)
            _decrement(self._shares, known.root)
        return known

    def is_at(self, partition: int, task_id: str, executor_id: str) -> bool:
        """Return whether the task is counted at this executor."""
        known = self._open.get(partition, {}).get(task_id)
        return known is not None and known.executor_id == executor_id

    def load(self, offer: Offer) -> int:
        """Return the executor's number of open tasks, as far as this process knows."""
        reported = self.peers.partitions
        counted: Collection[int] = reported.union(self._open) if reported else self._open
        elsewhere = sum(n for partition, n in offer.open_tasks.items() if int(partition) not in counted)
        return self._loads[offer.executor_id] + elsewhere + self.peers.loads.get(offer.executor_id, 0)

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions that are counted here."""
        return tuple(self._open)

    @property
    def loads(self) -> Mapping[str, int]:
        """The number of open tasks of these partitions, by executor."""
        return self._loads

    def share(self, root: str) -> int:
        """Return how many tasks of this group root are at executors; its partition is one of this process."""
        return self._shares[root]

    def all_free_slots(self) -> int:
        """Return the number of free slots of all executors together."""
        return sum(self._free_slots(offer) for offer in self.offers.values())

    def free_slots(self, executor_id: str) -> int:
        """Return the executor's number of free slots; 0 if it is not alive."""
        offer = self.offers.get(executor_id)
        return 0 if offer is None else self._free_slots(offer)

    def _free_slots(self, offer: Offer) -> int:
        return max(offer.active_tasks_limit - self.load(offer), 0) if offer.active_tasks_limit else _UNLIMITED

    def choose(self, demand: Demand, failed_at: tuple[str, ...], among: Mapping[str, Offer]) -> str | None:
        """Return the executor to give a task to; None if no executor among these fits and has a free slot."""
        loads = {offer.executor_id: self.load(offer) for offer in among.values()}
        return choose_executor(among, loads, demand, failed_at)


def _decrement(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
