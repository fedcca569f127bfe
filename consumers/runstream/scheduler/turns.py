"""Which task gets the next room at an executor, over all partitions that this process schedules.

A task that finds no room waits in a line. Room that is made goes at once to a task that waits for it, so a newer one
never finds it first: it is reserved for that task until it is assigned. Whose turn it is: the higher priority; among
equals the group root that has the fewest tasks at executors, or else got one the longest ago; then the oldest run.
Every fourth room of an executor goes by shares alone, whatever the priorities, so that nobody waits for ever behind
those who call everything urgent.

Nothing here looks through all that wait: a room costs a look at each line.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence

from runstream.domain.executor import Demand, fits
from runstream.scheduler.capacity import Capacity
from runstream.scheduler.lines import Ask, Line, Standing

BY_SHARE_EVERY = 4
"""One in so many rooms of an executor goes to the smallest share, whatever its priority."""

_Key = tuple[Demand, int]


class Turns:
    """Who waits, and what was given to whom and is not assigned yet; shared by the workers of a process."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._lines: dict[_Key, Line] = {}
        self._lines_of: defaultdict[str, Counter[_Key]] = defaultdict(Counter)
        """For each group root, in which lines how many of its tasks wait."""
        self._waiting: dict[str, Ask] = {}
        self._granted: dict[str, str] = {}
        """Of each task that has got room and is not assigned yet: at which executor."""
        self._of_run: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
        self._tell: dict[int, Callable[[str], None]] = {}
        self._served: dict[str, int] = {}
        """Of each group root that has or wants something: when it got the last, as a number that grows."""
        self._serving = 0
        self._given: Counter[str] = Counter()
        """How often the room of an executor was given to one that waited."""

    def own(self, partition: int, granted: Callable[[str], None]) -> None:
        """From now on this process schedules the partition; `granted` is told each run that has got room."""
        self._tell[partition] = granted
        self.capacity.own(partition)

    def disown(self, partition: int) -> None:
        """Forget what the partition has and wants: it is another process's."""
        for ask in [ask for ask in self._waiting.values() if ask.partition == partition]:
            self._forget(partition, ask.run_id, ask.id)
            self._leave(ask)
        for _, run_id in [key for key in self._of_run if key[0] == partition]:
            self.keep(partition, run_id, ())
        self._tell.pop(partition, None)
        self.capacity.disown(partition)
        for root in list(self._served):
            self._rank(root)
        for executor_id in list(self.capacity.offers):
            self._give(executor_id)

    def want(self, asks: Sequence[Ask]) -> None:
        """Tasks that can run now: each gets room, or waits. What they have got is to be fetched with `take`."""
        fresh = {ask.id: ask for ask in asks if ask.id not in self._waiting and ask.id not in self._granted}
        for ask in fresh.values():
            self._of_run[ask.partition, ask.run_id].add(ask.id)
        if not self._lines and self.capacity.free() >= len(fresh):
            for ask in list(fresh.values()):
                if (executor_id := self.capacity.choose(ask.demand)) is not None:
                    self._grant(ask, executor_id)
                    del fresh[ask.id]
        for ask in fresh.values():
            self._wait(ask)
        self._settle({_key(ask) for ask in fresh.values()}, fresh)

    def waits(self, ask: Ask) -> bool:
        """Whether it is known that the task has to wait."""
        return ask.id in self._waiting

    def take(self, ask: Ask) -> str | None:
        """The executor where the task has got room, which now becomes its own; None when it has to wait."""
        executor_id = self._granted.pop(ask.id, None)
        if executor_id is not None:
            self._forget(ask.partition, ask.run_id, ask.id)
        return executor_id

    def keep(self, partition: int, run_id: str, wanted: Collection[str]) -> None:
        """Of all that the run wants, or has got and not taken, only these (ids) are still of use."""
        for task_id in self._of_run.get((partition, run_id), set()).difference(wanted):
            self._forget(partition, run_id, task_id)
            if (ask := self._waiting.get(task_id)) is not None:
                self._leave(ask)
            elif self._granted.pop(task_id, None) is not None:
                self.closed(partition, task_id)

    def opened(self, partition: int, task_id: str, executor_id: str, root: str) -> None:
        """An executor task is in the log."""
        if self.capacity.opened(partition, task_id, executor_id, root):
            self._serve(root)

    def closed(self, partition: int, task_id: str) -> None:
        """An executor task ended, or was not assigned after all: its room goes to the next."""
        known = self.capacity.closed(partition, task_id)
        if known is not None:
            self._rank(known.root)
            self._give(known.executor_id)

    def refused(self, partition: int, task_id: str, executor_id: str) -> None:
        """The task was not assigned to this executor; it may be at another one."""
        if self.capacity.is_at(partition, task_id, executor_id):
            self.closed(partition, task_id)

    def offered(self, executor_id: str) -> None:
        """An executor is there, or offers something else than before."""
        self._give(executor_id)

    def before(self, ask: Ask) -> int:
        """How many tasks that would fit the same executors come before this one, as things are now."""
        lines = (line for line in self._lines.values() if line.demand == ask.demand and line.priority >= ask.priority)
        return sum(line.before(ask) if line.priority == ask.priority else len(line) for line in lines)

    def _give(self, executor_id: str) -> None:
        """Give what room the executor has to those whose turn it is."""
        while self.capacity.room(executor_id) > 0:
            offer = self.capacity.offers[executor_id]
            lines = [line for line in self._lines.values() if fits(offer, line.demand)]
            if not lines:
                return
            self._given[executor_id] += 1
            by_share = self._given[executor_id] % BY_SHARE_EVERY == 0
            line = min(lines, key=_by_share if by_share else _by_priority)
            ask = line.first()[1]
            self._grant(ask, executor_id)
            self._tell[ask.partition](ask.run_id)

    def _settle(self, keys: Iterable[_Key], fresh: Collection[str]) -> None:
        """Give the room that there is to the lines that have just become longer."""
        hopeful = {key: self._lines[key] for key in keys}
        while hopeful:
            found: list[tuple[Line, str]] = []
            for key, line in list(hopeful.items()):
                executor_id = self.capacity.choose(line.demand) if line else None
                if executor_id is None:
                    del hopeful[key]
                else:
                    found.append((line, executor_id))
            if found:
                line, executor_id = min(found, key=lambda pair: _by_priority(pair[0]))
                ask = line.first()[1]
                self._grant(ask, executor_id)
                if ask.id not in fresh:
                    self._tell[ask.partition](ask.run_id)

    def _grant(self, ask: Ask, executor_id: str) -> None:
        if ask.id in self._waiting:
            self._leave(ask)
        self._granted[ask.id] = executor_id
        self.capacity.opened(ask.partition, ask.id, executor_id, ask.root)
        self._serve(ask.root)

    def _wait(self, ask: Ask) -> None:
        key = _key(ask)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(ask.demand, ask.priority, self._standing)
        line.add(ask)
        self._waiting[ask.id] = ask
        self._lines_of[ask.root][key] += 1

    def _leave(self, ask: Ask) -> None:
        key, lines = _key(ask), self._lines_of[ask.root]
        self._lines[key].remove(ask)
        if not self._lines[key]:
            del self._lines[key]
        del self._waiting[ask.id]
        lines[key] -= 1
        if not lines[key]:
            del lines[key]
        if not lines:
            del self._lines_of[ask.root]
            self._rank(ask.root)

    def _standing(self, root: str) -> Standing:
        return self.capacity.share(root), self._served.get(root, 0)

    def _serve(self, root: str) -> None:
        self._serving += 1
        self._served[root] = self._serving
        self._rank(root)

    def _rank(self, root: str) -> None:
        for key in self._lines_of.get(root, ()):
            self._lines[key].rank(root)
        if root not in self._lines_of and not self.capacity.share(root):
            self._served.pop(root, None)

    def _forget(self, partition: int, run_id: str, task_id: str) -> None:
        wanted = self._of_run[partition, run_id]
        wanted.discard(task_id)
        if not wanted:
            del self._of_run[partition, run_id]


def _key(ask: Ask) -> _Key:
    return ask.demand, ask.priority


def _by_priority(line: Line) -> tuple[int, int, int, int]:
    return -line.priority, *line.first()[0]


def _by_share(line: Line) -> tuple[int, int, int, int]:
    (share, served, sequence), _ = line.first()
    return share, served, -line.priority, sequence
