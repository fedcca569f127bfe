"""The state of one partition, folded from its commits and from nothing else.

A commit that does not fit (another version than the next, a missing aggregate, an index out of range) raises
`UnfitCommitError` and changes nothing: the caller parks it. `needs` names what a batch needs that is not in memory, so
that the caller can load it first. A skipped commit (`runstream.skips`) changes the version of its aggregate alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from runstream.commits import DecodedCommit, Head, StoredCommit
from runstream.domain import run as runs
from runstream.domain.execution import with_executor_task
from runstream.domain.executor import RegisteredExecutor
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import RunState
from runstream.events.executor_task import (
    ExecutorTaskArchiveStored,
    ExecutorTaskAssigned,
    ExecutorTaskLogLost,
    ExecutorTaskLogStored,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
)
from runstream.events.run import RunCreated, RunEvent, RunNumbered
from runstream.events.run_config import RunConfig, RunConfigStored
from runstream.folding import UnfitCommitError, fitting, fold_executor, fold_executor_task
from runstream.ids import run_task_id
from runstream.skips import Skips
from runstream.subjects import MAX_PARTITIONS, Address, group_root

S = TypeVar("S")
LATE_REPORTS = (
    ExecutorTaskSetupFinished,
    ExecutorTaskStepStarted,
    ExecutorTaskStepFinished,
    ExecutorTaskLogStored,
    ExecutorTaskLogLost,
    ExecutorTaskArchiveStored,
)
"""What an executor that was lost may report of a task whose run was deleted meanwhile; it changes nothing."""


class Tracked(Struct, Generic[S], frozen=True, gc=False):
    """An aggregate's state and its head."""

    state: S
    head: Head


class Changed(Struct, Generic[S], frozen=True, gc=False):
    """An aggregate before and after a batch; `before` is None when it is new or was loaded for the batch."""

    now: Tracked[S]
    before: Tracked[S] | None


@dataclass(frozen=True, slots=True)
class Parked:
    """A commit that could not be read or applied."""

    sequence: int
    subject: str
    aggregate: str
    reason: str


@dataclass(slots=True)
class Changes:
    """The changes of a batch in one partition, to be projected in one transaction."""

    partition: int
    epoch: int
    before: int
    """The checkpoint before the batch."""
    after: int
    """The checkpoint after it."""
    runs: dict[str, Changed[RunState]] = field(default_factory=dict)
    executor_tasks: dict[str, Changed[ExecutorTask]] = field(default_factory=dict)
    executors: dict[str, Changed[RegisteredExecutor]] = field(default_factory=dict)
    configs: dict[str, RunConfig] = field(default_factory=dict)
    """New run configs, by content hash."""
    counters: dict[str, int] = field(default_factory=dict)
    """The last recorded number of each group root that changed."""
    run_sequence: int = 0
    """The partition's last recorded run sequence; 0 when it did not change."""
    parked: dict[int, Parked] = field(default_factory=dict)
    """The parked commits, by their sequences."""
    unparked: set[int] = field(default_factory=set)
    """Sequences of commits that are no longer parked."""

    @property
    def deleted(self) -> dict[str, tuple[str, ...]]:
        """The deleted runs, each with the executor tasks that it keeps of earlier runs."""
        runs = (one.now.state for one in self.runs.values())
        return {run.id: run.kept_executions for run in runs if run.deleted_at is not None}

    def merge(self, later: Changes) -> None:
        """Merge the changes of the next batch, to project both at once."""
        self.after = later.after
        self.runs.update({key: _joined(self.runs.get(key), changed) for key, changed in later.runs.items()})
        self.executor_tasks.update(
            {key: _joined(self.executor_tasks.get(key), changed) for key, changed in later.executor_tasks.items()}
        )
        self.executors.update({key: _joined(self.executors.get(key), c) for key, c in later.executors.items()})
        self.configs.update(later.configs)
        self.counters.update(later.counters)
        self.run_sequence = max(self.run_sequence, later.run_sequence)
        self.parked = {key: one for key, one in self.parked.items() if key not in later.unparked} | later.parked
        self.unparked = (self.unparked | later.unparked) - later.parked.keys()


def _joined(earlier: Changed[S] | None, later: Changed[S]) -> Changed[S]:
    return later if earlier is None else Changed(later.now, earlier.before)


@dataclass(frozen=True, slots=True)
class Needs:
    """The aggregates to load before a batch can be applied."""

    runs: frozenset[str]
    executor_tasks: frozenset[str]
    configs: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.runs or self.executor_tasks or self.configs)


@dataclass(slots=True)
class PartitionFold:
    """The state of one partition as of `after`."""

    partition: int
    epoch: int
    after: int = 0
    runs: dict[str, Tracked[RunState]] = field(default_factory=dict)
    executor_tasks: dict[str, Tracked[ExecutorTask]] = field(default_factory=dict)
    executors: dict[str, Tracked[RegisteredExecutor]] = field(default_factory=dict)
    configs: dict[str, RunConfig] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    """The last number of each group root that a `RunNumbered` records."""
    run_sequence: int = 0
    """The highest run sequence that a `RunNumbered` records."""
    skips: Skips = field(default_factory=Skips)
    """The known skip decisions; the fold adds those that it meets."""
    _changes: Changes | None = None
    _proposed_counters: dict[str, int] = field(default_factory=dict)
    _proposed_sequence: int = 0
    """The last numbers proposed to new runs. A proposal depends on when its run is applied, and a parked `RunCreated`
    is applied late; so only what `RunNumbered` records is state of the partition."""

    def __post_init__(self) -> None:
        for tracked in self.runs.values():
            if not tracked.state.numbered:
                self._propose(tracked.state)

    def needs(self, commits: Iterable[StoredCommit]) -> Needs:
        """Return the aggregates that these commits touch, do not begin, and that are not in memory."""
        run_ids: set[str] = set()
        task_ids: set[str] = set()
        hashes: set[str] = set()
        new: set[tuple[str, str]] = set()
        for stored in commits:
            commit = stored.commit
            kind, key = commit.address.kind, commit.address.id
            begins = commit.version == 1 and commit.events
            if begins:
                new.add((kind, key))
            if kind == "run":
                if not begins and key not in self.runs:
                    run_ids.add(key)
                for event in commit.events:
                    if isinstance(event, RunCreated) and event.run_config not in self.configs:
                        hashes.add(event.run_config)
            elif kind == "task":
                if not begins and key not in self.executor_tasks:
                    task_ids.add(key)
                for event in commit.events:
                    if isinstance(event, ExecutorTaskAssigned) and event.run_id not in self.runs:
                        run_ids.add(event.run_id)
        return Needs(
            frozenset(key for key in run_ids if ("run", key) not in new),
            frozenset(key for key in task_ids if ("task", key) not in new),
            frozenset(key for key in hashes if ("runconfig", key) not in new),
        )

    def apply(self, stored: StoredCommit) -> None:
        """Apply one commit. Raises UnfitCommitError, with nothing changed but the position."""
        changes = self.changes
        changes.after = self.after = max(self.after, stored.position.sequence)
        if not stored.commit.events:
            self._skip(stored.commit.address, _head(stored))
            return
        with fitting(stored.commit):
            match stored.commit.address.kind:
                case "run":
                    self._apply_run(stored)
                case "task":
                    self._apply_executor_task(stored)
                case "executor":
                    self._apply_executor(stored)
                case "runconfig":
                    self._apply_config(stored)
                case "skip":
                    self.skips.take(stored)

    def park(self, sequence: int, subject: str, aggregate: str, reason: str) -> None:
        """Park the commit at this sequence and move behind it."""
        self.changes.after = self.after = max(self.after, sequence)
        self.changes.parked[sequence] = Parked(sequence, subject, aggregate, reason)

    @property
    def changes(self) -> Changes:
        """The changes since the last `take_changes`."""
        if self._changes is None:
            self._changes = Changes(self.partition, self.epoch, self.after, self.after)
        return self._changes

    def take_changes(self) -> Changes:
        """Return the changes since the last call, and start over."""
        changes = self.changes
        self._changes = None
        return changes

    def _skip(self, address: Address, head: Head) -> None:
        """Apply a skipped commit: it changes the head of its aggregate, if that exists, and nothing else."""
        if address.kind == "run" and (run := self.runs.get(address.id)) is not None:
            self._put_run(run.state, head)
        elif address.kind == "task" and (task := self.executor_tasks.get(address.id)) is not None:
            self._put_executor_task(task.state, head)
            owner = self.runs[task.state.run_id]
            self._put_run(owner.state, owner.head)
        elif address.kind == "executor" and (executor := self.executors.get(address.id)) is not None:
            self._put_executor(executor.state, head)

    def _require_next(self, commit: DecodedCommit, tracked: Tracked[S] | None) -> None:
        have = tracked.head.version if tracked is not None else self.skips.begun(commit.address.aggregate)
        if commit.version != have + 1:
            raise UnfitCommitError(
                f"{commit.address.aggregate} is at version {have}, the commit is version {commit.version}",
                aggregate=commit.address.aggregate,
                have=have,
                commit=commit.version,
            )

    def _apply_run(self, stored: StoredCommit) -> None:
        commit = stored.commit
        tracked = self.runs.get(commit.address.id)
        self._require_next(commit, tracked)
        run = tracked.state if tracked is not None else None
        for event in cast("tuple[RunEvent, ...]", commit.events):
            if isinstance(event, RunCreated):
                root = group_root(event.group)
                counter = max(self.counters.get(root, 0), self._proposed_counters.get(root, 0)) + 1
                previous = max(self.run_sequence, self._proposed_sequence)
                sequence = next_run_sequence(previous, commit.time, self.partition)
                config = self.configs[event.run_config]
                run = runs.created(commit.address.id, event, config, commit.time, run_task_id)
                run = replace(run, counter=counter, sequence=sequence)
                continue
            if run is None:
                raise UnfitCommitError(f"{commit.address.aggregate} does not begin with its creation")
            run = runs.evolve(run, event, commit.time, commit.actor)
        if run is None:
            raise UnfitCommitError(f"{commit.address.aggregate} has no events")
        if not run.numbered:
            self._propose(run)
        elif RunNumbered in map(type, commit.events):
            self._record(run)
        self._put_run(run, _head(stored))

    def _propose(self, run: RunState) -> None:
        root = group_root(run.group)
        self._proposed_counters[root] = max(self._proposed_counters.get(root, 0), run.counter)
        self._proposed_sequence = max(self._proposed_sequence, run.sequence)

    def _record(self, run: RunState) -> None:
        root = group_root(run.group)
        self.counters[root] = self.changes.counters[root] = max(self.counters.get(root, 0), run.counter)
        self.run_sequence = self.changes.run_sequence = max(self.run_sequence, run.sequence)

    def _put_run(self, run: RunState, head: Head) -> None:
        _put(self.runs, self.changes.runs, run.id, Tracked(run, head))

    def _apply_executor_task(self, stored: StoredCommit) -> None:
        commit = stored.commit
        tracked = self.executor_tasks.get(commit.address.id)
        unknown = tracked is None and commit.version > 1 and not self.skips.begun(commit.address.aggregate)
        if unknown and all(isinstance(event, LATE_REPORTS) for event in commit.events):
            return
        self._require_next(commit, tracked)
        task = fold_executor_task(tracked.state if tracked is not None else None, commit)
        owner = self.runs[task.run_id]
        run = with_executor_task(owner.state, task)
        self._put_executor_task(task, _head(stored))
        self._put_run(run, owner.head)

    def _put_executor_task(self, task: ExecutorTask, head: Head) -> None:
        _put(self.executor_tasks, self.changes.executor_tasks, task.id, Tracked(task, head))

    def _apply_executor(self, stored: StoredCommit) -> None:
        commit = stored.commit
        tracked = self.executors.get(commit.address.id)
        self._require_next(commit, tracked)
        executor = fold_executor(tracked.state if tracked is not None else None, commit)
        self._put_executor(executor, _head(stored))

    def _put_executor(self, executor: RegisteredExecutor, head: Head) -> None:
        _put(self.executors, self.changes.executors, executor.id, Tracked(executor, head))

    def _apply_config(self, stored: StoredCommit) -> None:
        for event in stored.commit.events:
            if not isinstance(event, RunConfigStored):
                raise UnfitCommitError(f"{type(event).__name__} is not an event of a run config")
            self.configs[stored.commit.address.id] = event.content
            self.changes.configs[stored.commit.address.id] = event.content


def next_run_sequence(previous: int, at: datetime, partition: int) -> int:
    """Return the sequence of a run: unique over all partitions, increasing in each, close to the order of time."""
    by_time = int(at.timestamp() * 1000) * MAX_PARTITIONS + partition
    return max(previous + MAX_PARTITIONS, by_time)


def _head(stored: StoredCommit) -> Head:
    return Head(stored.commit.version, stored.position.sequence)


def _put(kept: dict[str, Tracked[S]], changes: dict[str, Changed[S]], key: str, now: Tracked[S]) -> None:
    """Keep the new state, and the change from the state before the batch."""
    earlier = changes.get(key)
    changes[key] = Changed(now, kept.get(key) if earlier is None else earlier.before)
    kept[key] = now
