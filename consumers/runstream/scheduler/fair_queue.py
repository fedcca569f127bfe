"""The fair queue: which pending task gets the next free slot at an executor, over all partitions.

A task that finds no free slot is pending. A slot that becomes free goes at once to a pending task and stays reserved
until that is assigned, so a newer task never finds it first. The higher priority is served first; among equals the
group root with the fewest tasks at executors, then the one that was served the longest ago; then the oldest run. Every
fourth slot of an executor goes by share alone, so that a stream of urgent tasks cannot starve the others.

Pending tasks of other processes count as their reports say (`runstream.scheduler.peers`): a slot that is theirs is
left free, and they take it. The cost of a slot depends on the number of sub-queues, not on that of pending tasks.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Generic, TypeVar

from runstream.domain.executor import Demand, Offer, fits
from runstream.scheduler.capacity import Capacity
from runstream.scheduler.peers import Claim, Order, PeerReport, QueuePlace, Rank, Usage, by_priority, by_share

BY_SHARE_EVERY = 4
"""One of every `BY_SHARE_EVERY` slots of an executor goes to the smallest share, whatever its priority."""
REPORTED_QUEUES = 64
REPORTED_ROOTS = 16
"""Bounds of a report to peers: sub-queues, and group roots in each, those served next first."""

R = TypeVar("R", datetime, tuple[int, int, int])
_Key = tuple[Demand, int]


class PriorityMap(Generic[R]):
    """A map from keys to ranks that change, with the lowest rank at hand."""

    def __init__(self) -> None:
        self._ranks: dict[str, R] = {}
        self._heap: list[tuple[R, str]] = []
        """Holds stale entries, too: those that differ from `_ranks`."""

    def __len__(self) -> int:
        return len(self._ranks)

    def set(self, key: str, rank: R | None) -> None:
        """Replace the key's rank; None removes the key."""
        if rank == self._ranks.get(key):
            return
        if rank is None:
            del self._ranks[key]
        else:
            self._ranks[key] = rank
            heapq.heappush(self._heap, (rank, key))
        if len(self._heap) > 2 * len(self._ranks) + 16:
            self._heap = [(there, name) for name, there in self._ranks.items()]
            heapq.heapify(self._heap)

    @property
    def first(self) -> tuple[R, str] | None:
        """The lowest rank and its key; None when the map is empty."""
        while self._heap:
            rank, key = self._heap[0]
            if self._ranks.get(key) == rank:
                return rank, key
            heapq.heappop(self._heap)
        return None

    def lowest(self, count: int) -> list[tuple[R, str]]:
        """Return at most `count` of the lowest ranks with their keys; looks at all keys."""
        return heapq.nsmallest(count, ((rank, key) for key, rank in self._ranks.items()))


@dataclass(frozen=True, slots=True)
class PendingTask:
    """A task that can run and needs a slot at an executor."""

    id: str
    """The id of its future executor task."""
    partition: int
    run_id: str
    task: str
    root: str
    """The root of its run's group: whose share it counts for."""
    priority: int
    sequence: int
    """Its run's sequence: older runs have smaller ones, over all partitions."""
    level: int
    demand: Demand
    failed_at: tuple[str, ...] = ()
    """The executors of its failed attempts."""


class SubQueue:
    """The pending tasks with the same priority and the same demand; all of them fit the same executors."""

    def __init__(self, demand: Demand, priority: int, usage: Callable[[str], Usage]) -> None:
        """`usage(root)` returns the current usage of a group root."""
        self.demand = demand
        self.priority = priority
        self._usage = usage
        self._tasks: dict[str, PendingTask] = {}
        self._of_root: dict[str, list[tuple[int, int, str, str]]] = {}
        """By root a heap of sequence, level, name and id; entries that `_tasks` lacks are stale."""
        self.roots: PriorityMap[QueuePlace] = PriorityMap()
        """The group roots, in the order in which they are served."""

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: PendingTask) -> None:
        """Add a task."""
        self._tasks[task.id] = task
        heapq.heappush(self._of_root.setdefault(task.root, []), (task.sequence, task.level, task.task, task.id))
        self.rank(task.root)

    def remove(self, task: PendingTask) -> None:
        """Remove a task."""
        del self._tasks[task.id]
        self.rank(task.root)

    def rank(self, root: str) -> None:
        """Rank the root anew, after its usage or its first task may have changed."""
        heap = self._of_root.get(root, [])
        while heap and heap[0][3] not in self._tasks:
            heapq.heappop(heap)
        if heap:
            self.roots.set(root, (*self._usage(root), heap[0][0]))
        else:
            self._of_root.pop(root, None)
            self.roots.set(root, None)

    def first(self) -> tuple[QueuePlace, PendingTask]:
        """Return the next task and its root's place. Raises LookupError when the queue is empty."""
        first = self.roots.first
        if first is None:
            raise LookupError("no task is pending in this queue")
        place, root = first
        return place, self._tasks[self._of_root[root][0][3]]

    def ahead_of(self, task: PendingTask) -> int:
        """Count the tasks that are served before this one in the current order; looks at all of them."""
        own = self._place(task)
        return sum(1 for other in self._tasks.values() if self._place(other) < own)

    def _place(self, task: PendingTask) -> tuple[int, int, int, int, str]:
        return *self._usage(task.root), task.sequence, task.level, task.task


class FairQueue:
    """The pending tasks, and the slots reserved for tasks that are not assigned yet; shared by a process's workers."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._queues: dict[_Key, SubQueue] = {}
        self._queues_of: defaultdict[str, Counter[_Key]] = defaultdict(Counter)
        """By group root: its number of pending tasks in each sub-queue."""
        self._pending: dict[str, PendingTask] = {}
        self._reserved: dict[str, str] = {}
        """By task: the executor where a slot is reserved for it."""
        self._of_run: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
        self._on_reserved: dict[int, Callable[[str], None]] = {}
        self._served: dict[str, int] = {}
        """By group root with a share or a pending task: when it was last served, as a number that grows."""
        self._serving = 0
        self._given: Counter[str] = Counter()
        """By executor: how many of its slots went to pending tasks."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when the report to peers may have changed."""

    def own(self, partition: int, on_reserved: Callable[[str], None]) -> None:
        """Schedule the partition from now on; `on_reserved` gets the id of each run whose pending task got a slot."""
        self._on_reserved[partition] = on_reserved
        self.capacity.own(partition)
        self.on_change()

    def disown(self, partition: int) -> None:
        """Forget the partition's tasks and slots: another process schedules it."""
        for task in [task for task in self._pending.values() if task.partition == partition]:
            self._forget(partition, task.run_id, task.id)
            self._dequeue(task)
        for _, run_id in [key for key in self._of_run if key[0] == partition]:
            self.retain(partition, run_id, ())
        self._on_reserved.pop(partition, None)
        self.capacity.disown(partition)
        self.on_change()
        for root in list(self._served):
            self._rank(root)
        for executor_id in list(self.capacity.offers):
            self._give(executor_id)

    def enqueue(self, tasks: Sequence[PendingTask]) -> None:
        """Reserve a slot for each task, or queue it as pending. `take` returns the reserved slots."""
        fresh = {task.id: task for task in tasks if task.id not in self._pending and task.id not in self._reserved}
        for task in fresh.values():
            self._of_run[task.partition, task.run_id].add(task.id)
        # The usual case, enough slots for all: no order is needed.
        if not self._queues and not self.capacity.peers.claims and self.capacity.all_free_slots() >= len(fresh):
            for task in list(fresh.values()):
                executor_id = self.capacity.choose(task.demand, task.failed_at, self.capacity.offers)
                if executor_id is not None:
                    self._reserve(task, executor_id)
                    del fresh[task.id]
        for task in fresh.values():
            self._append(task)
        self._serve_queues({_key(task) for task in fresh.values()}, fresh)

    def is_pending(self, task: PendingTask) -> bool:
        """Return whether the task is known to wait for a slot."""
        return task.id in self._pending

    def take(self, task: PendingTask) -> str | None:
        """Return the executor where a slot is reserved for the task, which takes it; None while it is pending."""
        executor_id = self._reserved.pop(task.id, None)
        if executor_id is not None:
            self._forget(task.partition, task.run_id, task.id)
        return executor_id

    def retain(self, partition: int, run_id: str, wanted: Collection[str]) -> None:
        """Drop all pending tasks and reserved slots of the run except those of these ids."""
        for task_id in self._of_run.get((partition, run_id), set()).difference(wanted):
            self._forget(partition, run_id, task_id)
            if (task := self._pending.get(task_id)) is not None:
                self._dequeue(task)
            elif self._reserved.pop(task_id, None) is not None:
                self.closed(partition, task_id)

    def opened(self, partition: int, task_id: str, executor_id: str, root: str) -> None:
        """Count an executor task that is in the log."""
        if self.capacity.opened(partition, task_id, executor_id, root):
            self._serve(root)

    def closed(self, partition: int, task_id: str) -> None:
        """Pass on the slot of an executor task that ended, or was not assigned."""
        known = self.capacity.closed(partition, task_id)
        if known is not None:
            self._rank(known.root)
            self._give(known.executor_id)
            self.on_change()

    def refused(self, partition: int, task_id: str, executor_id: str) -> None:
        """Pass on the slot of a task that was not assigned to this executor; it may be at another one."""
        if self.capacity.is_at(partition, task_id, executor_id):
            self.closed(partition, task_id)

    def offered(self, executor_id: str) -> None:
        """Give out the slots of an executor that is new, or whose offer changed."""
        self._give(executor_id)

    def ahead_of(self, task: PendingTask) -> int:
        """Count the tasks with the same demand that are served before this one, in the current order."""
        queues = (queue for queue in self._queues.values() if queue.demand == task.demand)
        own = sum(
            queue.ahead_of(task) if queue.priority == task.priority else len(queue)
            for queue in queues
            if queue.priority >= task.priority
        )
        place = (*self._usage(task.root), task.sequence)
        return own + self.capacity.peers.ahead_of(task.demand, task.priority, place, task.root)

    @property
    def waiting(self) -> bool:
        """True if any task is pending in this process."""
        return bool(self._queues)

    def report(self) -> PeerReport:
        """Return this process's report to its peers."""
        given = {executor_id: n % BY_SHARE_EVERY for executor_id, n in self._given.items() if n % BY_SHARE_EVERY}
        claims = tuple(self._claims())
        return PeerReport(self.capacity.partitions, claims, dict(self.capacity.loads), given, self._serving)

    def receive(self, process: str, report: PeerReport | None) -> None:
        """Replace a peer's report; None withdraws it. Call `reassign` afterwards."""
        self.capacity.peers.receive(process, report)
        if report is not None:
            self._serving = max(self._serving, report.serving)

    def reassign(self) -> None:
        """Give out free slots anew, after peers have reported, or shares changed while slots were left to them."""
        if self._queues:
            for executor_id in list(self.capacity.offers):
                self._give(executor_id)

    def _give(self, executor_id: str) -> None:
        """Give the executor's free slots to the tasks that are next, and leave free what peers will take."""
        offer = self.capacity.offers.get(executor_id)
        if offer is None or not self._queues or not self.capacity.free_slots(executor_id):
            return
        peers, left = self.capacity.peers, 0
        contention = peers.contention(offer, self._serving)
        while self.capacity.free_slots(executor_id) > left:
            queues = [queue for queue in self._queues.values() if fits(offer, queue.demand)]
            if not queues:
                return
            number = self._given[executor_id] + peers.given.get(executor_id, 0) + left + 1
            order = by_priority if number % BY_SHARE_EVERY else by_share
            rank, queue = min(((_rank(queue, order), queue) for queue in queues), key=itemgetter(0))
            if contention is not None and contention.yields(order, rank):
                left += 1
                continue
            self._given[executor_id] += 1
            task = queue.first()[1]
            self._reserve(task, executor_id)
            self._on_reserved[task.partition](task.run_id)

    def _serve_queues(self, keys: Iterable[_Key], fresh: Collection[str]) -> None:
        """Give free slots to the sub-queues that have just grown."""
        hopeful = {key: self._queues[key] for key in keys}
        while hopeful:
            found: list[tuple[SubQueue, str]] = []
            for key, queue in list(hopeful.items()):
                executor_id = self._choose(queue) if queue else None
                if executor_id is None:
                    del hopeful[key]
                else:
                    found.append((queue, executor_id))
            if found:
                queue, executor_id = min(found, key=lambda pair: _rank(pair[0], by_priority))
                task = queue.first()[1]
                self._reserve(task, executor_id)
                if task.id not in fresh:  # the caller of `enqueue` takes these slots at once
                    self._on_reserved[task.partition](task.run_id)

    def _choose(self, queue: SubQueue) -> str | None:
        """Return the executor for the first task of the queue, out of those where no peer's claims come before it."""
        offers, task = self.capacity.offers, queue.first()[1]
        if self.capacity.peers.claims:
            rank = _rank(queue, by_priority)
            offers = {key: offer for key, offer in offers.items() if not self._is_taken(key, offer, rank)}
        return self.capacity.choose(task.demand, task.failed_at, offers)

    def _is_taken(self, executor_id: str, offer: Offer, rank: Rank) -> bool:
        """Return whether the executor has no free slot, or peers will take them all."""
        slots = self.capacity.free_slots(executor_id)
        contention = self.capacity.peers.contention(offer, self._serving) if slots else None
        if contention is None:
            return not slots
        return all(contention.yields(by_priority, rank) for _ in range(slots))

    def _claims(self) -> Iterator[Claim]:
        """Yield the roots that are served next in each sub-queue; with too many of these, in those served next."""
        queues = sorted(self._queues.items(), key=lambda item: _rank(item[1], by_priority))[:REPORTED_QUEUES]
        for key, queue in queues:
            for place, root in queue.roots.lowest(REPORTED_ROOTS):
                yield Claim(queue.demand, queue.priority, root, place, self._queues_of[root][key])

    def _reserve(self, task: PendingTask, executor_id: str) -> None:
        if task.id in self._pending:
            self._dequeue(task)
        self._reserved[task.id] = executor_id
        self.capacity.opened(task.partition, task.id, executor_id, task.root)
        self._serve(task.root)

    def _append(self, task: PendingTask) -> None:
        key = _key(task)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = SubQueue(task.demand, task.priority, self._usage)
        queue.add(task)
        self._pending[task.id] = task
        self._queues_of[task.root][key] += 1
        self.on_change()

    def _dequeue(self, task: PendingTask) -> None:
        key, queues = _key(task), self._queues_of[task.root]
        self._queues[key].remove(task)
        if not self._queues[key]:
            del self._queues[key]
        del self._pending[task.id]
        self.on_change()
        queues[key] -= 1
        if not queues[key]:
            del queues[key]
        if not queues:
            del self._queues_of[task.root]
            self._rank(task.root)

    def _usage(self, root: str) -> Usage:
        return self.capacity.share(root), self._served.get(root, 0)

    def _serve(self, root: str) -> None:
        self._serving += 1
        self._served[root] = self._serving
        self._rank(root)
        self.on_change()

    def _rank(self, root: str) -> None:
        for key in self._queues_of.get(root, ()):
            self._queues[key].rank(root)
        if root not in self._queues_of and not self.capacity.share(root):
            self._served.pop(root, None)

    def _forget(self, partition: int, run_id: str, task_id: str) -> None:
        wanted = self._of_run[partition, run_id]
        wanted.discard(task_id)
        if not wanted:
            del self._of_run[partition, run_id]


def _key(task: PendingTask) -> _Key:
    return task.demand, task.priority


def _rank(queue: SubQueue, order: Order) -> Rank:
    place, task = queue.first()
    return order(queue.priority, place, task.root)
