"""Which task gets the next room at an executor, over all partitions.

A task that finds no room waits in a line. Room that is made goes at once to a task that waits for it, so a newer one
never finds it first: it is reserved for that task until it is assigned. Whose turn it is: the higher priority; among
equals the group root that has the fewest tasks at executors, or else got one the longest ago; then the oldest run.
Every fourth room of an executor goes by shares alone, whatever the priorities, so that nobody waits for ever behind
those who call everything urgent.

Tasks of other processes count as what these say (`runstream.scheduler.others`): room that it is their turn to have is
left, and they take it. Nothing here looks through all that wait: a room costs a look at each line.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from runstream.domain.executor import Demand, Offer, fits
from runstream.scheduler.capacity import Capacity
from runstream.scheduler.lines import Ask, Line, Standing
from runstream.scheduler.others import Claim, Notice, Order, Rank, by_priority, by_share

BY_SHARE_EVERY = 4
"""One in so many rooms of an executor goes to the smallest share, whatever its priority."""
SAID_LINES = 64
SAID_ROOTS = 16
"""Other processes are told of so many lines at most, and of so many roots in each: of those that are next."""

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
        self.on_change: Callable[[], None] = lambda: None
        """Called when something is different that other processes may have to know."""

    def own(self, partition: int, granted: Callable[[str], None]) -> None:
        """From now on this process schedules the partition; `granted` is told each run that has got room."""
        self._tell[partition] = granted
        self.capacity.own(partition)
        self.on_change()

    def disown(self, partition: int) -> None:
        """Forget what the partition has and wants: it is another process's."""
        for ask in [ask for ask in self._waiting.values() if ask.partition == partition]:
            self._forget(partition, ask.run_id, ask.id)
            self._leave(ask)
        for _, run_id in [key for key in self._of_run if key[0] == partition]:
            self.keep(partition, run_id, ())
        self._tell.pop(partition, None)
        self.capacity.disown(partition)
        self.on_change()
        for root in list(self._served):
            self._rank(root)
        for executor_id in list(self.capacity.offers):
            self._give(executor_id)

    def want(self, asks: Sequence[Ask]) -> None:
        """Tasks that can run now: each gets room, or waits. What they have got is to be fetched with `take`."""
        fresh = {ask.id: ask for ask in asks if ask.id not in self._waiting and ask.id not in self._granted}
        for ask in fresh.values():
            self._of_run[ask.partition, ask.run_id].add(ask.id)
        if not self._lines and not self.capacity.others.claims and self.capacity.free() >= len(fresh):
            for ask in list(fresh.values()):
                if (executor_id := self.capacity.choose(ask)) is not None:
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
            self.on_change()

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
        own = sum(line.before(ask) if line.priority == ask.priority else len(line) for line in lines)
        place = (*self._standing(ask.root), ask.sequence)
        return own + self.capacity.others.before(ask.demand, ask.priority, place, ask.root)

    @property
    def waiting(self) -> bool:
        """Whether any task waits here."""
        return bool(self._lines)

    def notice(self) -> Notice:
        """What other processes have to know of this one."""
        given = {executor_id: n % BY_SHARE_EVERY for executor_id, n in self._given.items() if n % BY_SHARE_EVERY}
        return Notice(self.capacity.partitions, tuple(self._claims()), dict(self.capacity.loads), given, self._serving)

    def hear(self, process: str, notice: Notice | None) -> None:
        """What another process says; None when it says nothing any more. To be followed by `reconsider`."""
        self.capacity.others.hear(process, notice)
        if notice is not None:
            self._serving = max(self._serving, notice.serving)

    def reconsider(self) -> None:
        """Others have spoken, or shares have changed while room is left for others: see whose turn it is now."""
        if self._lines:
            for executor_id in list(self.capacity.offers):
                self._give(executor_id)

    def _give(self, executor_id: str) -> None:
        """Give what room the executor has to those whose turn it is, and leave what is for others."""
        offer = self.capacity.offers.get(executor_id)
        room = self.capacity.room(executor_id)
        if offer is None or not room or not self._lines:
            return
        others, left = self.capacity.others, 0
        contest = others.contest(offer, self._serving)
        while self.capacity.room(executor_id) > left:
            lines = [line for line in self._lines.values() if fits(offer, line.demand)]
            if not lines:
                return
            number = self._given[executor_id] + others.given.get(executor_id, 0) + left + 1
            order = by_priority if number % BY_SHARE_EVERY else by_share
            rank, line = min(((_rank(line, order), line) for line in lines), key=_first)
            if contest is not None and contest.leave(order, rank):
                left += 1
                continue
            self._given[executor_id] += 1
            ask = line.first()[1]
            self._grant(ask, executor_id)
            self._tell[ask.partition](ask.run_id)

    def _settle(self, keys: Iterable[_Key], fresh: Collection[str]) -> None:
        """Give the room that there is to the lines that have just become longer."""
        hopeful = {key: self._lines[key] for key in keys}
        while hopeful:
            found: list[tuple[Line, str]] = []
            for key, line in list(hopeful.items()):
                executor_id = self._choose(line) if line else None
                if executor_id is None:
                    del hopeful[key]
                else:
                    found.append((line, executor_id))
            if found:
                line, executor_id = min(found, key=lambda pair: _rank(pair[0], by_priority))
                ask = line.first()[1]
                self._grant(ask, executor_id)
                if ask.id not in fresh:
                    self._tell[ask.partition](ask.run_id)

    def _choose(self, line: Line) -> str | None:
        """The executor for the first of the line, at which no task of other processes comes before it."""
        others, offers, ask = self.capacity.others, self.capacity.offers, line.first()[1]
        if not others.claims:
            return self.capacity.choose(ask)
        rank = _rank(line, by_priority)
        among = {key: offer for key, offer in offers.items() if not self._left(key, offer, rank)}
        return self.capacity.choose(ask, among)

    def _left(self, executor_id: str, offer: Offer, rank: Rank) -> bool:
        """Whether the executor has no room, or all of it is for others."""
        room = self.capacity.room(executor_id)
        contest = self.capacity.others.contest(offer, self._serving) if room else None
        if contest is None:
            return not room
        return all(contest.leave(by_priority, rank) for _ in range(room))

    def _claims(self) -> Iterator[Claim]:
        """Who is next in each line; of too many lines in those that are next themselves."""
        lines = sorted(self._lines.items(), key=lambda item: _rank(item[1], by_priority))[:SAID_LINES]
        for key, line in lines:
            for place, root in line.next_roots(SAID_ROOTS):
                yield Claim(line.demand, line.priority, root, place, self._lines_of[root][key])

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
        self.on_change()

    def _leave(self, ask: Ask) -> None:
        key, lines = _key(ask), self._lines_of[ask.root]
        self._lines[key].remove(ask)
        if not self._lines[key]:
            del self._lines[key]
        del self._waiting[ask.id]
        self.on_change()
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
        self.on_change()

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


def _rank(line: Line, order: Order) -> Rank:
    place, ask = line.first()
    return order(line.priority, place, ask.root)


def _first(ranked: tuple[Rank, Line]) -> Rank:
    return ranked[0]
