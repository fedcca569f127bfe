"""How full each executor is: the open tasks of the partitions that this process schedules, what it has just
given out, and what the executors say of all other partitions.

What other processes give out meanwhile is not known here, so a limit may be passed by a few for a moment: the
executor keeps such tasks waiting, and it is the executor that holds the limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from runstream.domain.executor import Offer, choose_executor
from runstream.events.run_config import RunConfigTask

_UNLIMITED = 1_000_000


class Capacity:
    """Counts open executor tasks; shared by the workers of a process."""

    def __init__(self) -> None:
        self.offers: Mapping[str, Offer] = {}
        self._open: dict[int, dict[str, str]] = {}
        self._loads: Counter[str] = Counter()

    def own(self, partition: int) -> None:
        """From now on this process counts the partition itself."""
        self._open[partition] = {}

    def disown(self, partition: int) -> None:
        """Another process counts the partition; executors say what is open there."""
        for executor_id in self._open.pop(partition, {}).values():
            self._loads[executor_id] -= 1

    def opened(self, partition: int, task_id: str, executor_id: str) -> None:
        """An executor task was assigned, or is about to be; counted once."""
        tasks = self._open[partition]
        if task_id not in tasks:
            tasks[task_id] = executor_id
            self._loads[executor_id] += 1

    def closed(self, partition: int, task_id: str) -> bool:
        """An executor task ended, or was not assigned after all; whether it was counted."""
        executor_id = self._open.get(partition, {}).pop(task_id, None)
        if executor_id is None:
            return False
        self._loads[executor_id] -= 1
        return True

    def load(self, offer: Offer) -> int:
        """How many open tasks the executor has, as far as it is known here."""
        elsewhere = sum(n for partition, n in offer.open_tasks.items() if int(partition) not in self._open)
        return self._loads[offer.executor_id] + elsewhere

    def free(self) -> int:
        """How many more tasks all executors together could take."""
        return sum(self._room(offer) for offer in self.offers.values())

    def _room(self, offer: Offer) -> int:
        return max(offer.active_tasks_limit - self.load(offer), 0) if offer.active_tasks_limit else _UNLIMITED

    def choose(self, task: RunConfigTask) -> str | None:
        """The executor that is to take the task, or None."""
        loads = {offer.executor_id: self.load(offer) for offer in self.offers.values()}
        return choose_executor(self.offers, loads, task)
