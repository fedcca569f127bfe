"""The history of one run, replayed commit by commit: the run as each of its commits left it.

The commits are those of the run and of its executor tasks, and the decisions to skip one of them. After each, the run
is what `RunsAsOf` returns for its position. A decision to skip changes what earlier commits did, so the run is folded
again from its beginning. A replay keeps messages, not states: a run of thousands of tasks has a state for each of its
commits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

from msgspec.structs import replace

from runstream.commits import Head, LogPosition, Position, StoredCommit
from runstream.database.runs import ReadRun, RunMoment, RunRecord
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import RunState
from runstream.events.run import RunNumbered
from runstream.feed import Item, classify, fold_or_park
from runstream.log.port import Log, RawMessage
from runstream.log.tail import TailScope, scope_of_tasks, tail
from runstream.projections.fold import PartitionFold
from runstream.projections.run_messages import RunMessages, id_of
from runstream.skips import Skips
from runstream.subjects import is_decision


class RunReplay:
    """The history of a run (see `runstream.gateway.reads.ReadHistory`)."""

    def __init__(self, log: Log, read: RunMessages, kept: Mapping[str, ExecutorTask]) -> None:
        """`kept` are the executor tasks of earlier runs whose outcome the run keeps."""
        self.partition = read.found.address.partition
        self._log = log
        self._found = read.found
        self._executions = read.executions
        self._kept = kept
        self._messages = [message for message in read.messages if self._is_of_run(message)]
        self._begin(Skips())

    @property
    def count(self) -> int:
        """The number of commits read so far."""
        return len(self._messages)

    def number_of(self, position: Position) -> int | None:
        """Return the number of the commit at a position, from 1; None for the position of another commit."""
        return next((number for number, one in enumerate(self._messages, 1) if one.position == position), None)

    def moments(self) -> Iterator[RunMoment]:
        """Yield the run as each commit left it, from the first one on."""
        self._begin(Skips())
        for number, message in enumerate(self._messages, 1):
            yield self._take(number, message)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Callable[[], Awaitable[list[RunMoment]]]]:
        """Follow the run behind `moments`: each call waits for the next commits, at least one."""
        sequences = [0] * self._log.partitions
        sequences[self.partition] = self._messages[-1].position.sequence
        scope = scope_of_tasks(self._log, self.partition, [*self._executions], run=self._found.address)
        filters = {self.partition: (*scope.filters[self.partition], self._log.subjects.skips(self.partition))}
        begin = LogPosition(self._log.epoch, tuple(sequences))

        async with tail(self._log, TailScope(filters, scope.ids), begin) as take:

            async def next_moments() -> list[RunMoment]:
                moments: list[RunMoment] = []
                while not moments:
                    for tailed in await take():
                        if self._is_of_run(tailed.raw):
                            self._messages.append(tailed.raw)
                            moments.append(self._take(self.count, tailed.raw))
                return moments

            yield next_moments

    def _begin(self, skips: Skips) -> None:
        """Go to the beginning of the history, with the decisions to skip known."""
        address, config = self._found.address, self._found.config
        self._skips, self._parked = skips, set[str]()
        self._fold = PartitionFold(address.partition, self._log.epoch)
        self._fold.configs[self._found.run.run_config] = config
        self._numbered = self._find_number()
        self._present: dict[str, ExecutorTask] = dict(self._kept)
        self._run: RunState | None = None

    def _find_number(self) -> RunNumbered:
        """Return the number of the run: it has it from its creation on, but the log records it a moment later."""
        parked = set[str]()
        subject = self._log.subjects.of(self._found.address)
        for message in self._messages:
            for item in classify([message], parked, self._skips) if message.subject == subject else ():
                for event in item.commit.events if isinstance(item, StoredCommit) else ():
                    if isinstance(event, RunNumbered):
                        return event
        return RunNumbered(0, 0)

    def _take(self, number: int, message: RawMessage) -> RunMoment:
        item = self._decide(number, message) if is_decision(message.subject) else self._apply(message)
        commit, reason = (item, "") if isinstance(item, StoredCommit) else (None, item.reason)
        task = self._executions.get(id_of(message), "") if not is_decision(message.subject) else ""
        return RunMoment(number, message, commit, reason, task, self._read())

    def _apply(self, message: RawMessage) -> Item:
        (item,) = fold_or_park(self._fold, classify([message], self._parked, self._skips), self._log.subjects)
        if not isinstance(item, StoredCommit):
            self._parked.add(item.aggregate)
        elif (changed := self._fold.executor_tasks.get(item.commit.address.id)) is not None:
            self._present = {**self._present, changed.state.id: changed.state}
        return item

    def _decide(self, number: int, message: RawMessage) -> Item:
        """Learn that a commit is skipped, and fold again what came before the decision."""
        (item,) = classify([message], self._parked, Skips())
        if isinstance(item, StoredCommit):
            skips, parked = self._skips, {name for name in self._parked if name.startswith("skip/")}
            skips.take(item)
            self._begin(skips)
            self._parked |= parked
            for earlier in self._messages[: number - 1]:
                if not is_decision(earlier.subject):
                    self._apply(earlier)
        return item

    def _read(self) -> ReadRun:
        tracked = self._fold.runs[self._found.run.id]
        run = tracked.state
        if not run.numbered:
            run = replace(run, counter=self._numbered.counter, sequence=self._numbered.sequence)
        record = RunRecord(run, Head(tracked.head.version, tracked.head.sequence), self.partition, self._present)
        return ReadRun(record, self._found.config)

    def _is_of_run(self, message: RawMessage) -> bool:
        return id_of(message) in self._executions or id_of(message) == self._found.run.id
