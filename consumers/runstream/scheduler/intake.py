"""Intake of commits: from a batch of the feed to the partition's state.

State that a batch needs and is not in memory is loaded. A commit that does not fit, or that Postgres refuses, is
parked. Postgres refuses a transaction and not a commit, so `Unstorable` finds the one to blame: the batch is read again
commit by commit, and the one that is refused alone is parked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog

from runstream.commits import DecodedCommit
from runstream.database.database import Database
from runstream.events.run import RunFinished, RunResultSet, RunStarted
from runstream.feed import Batch, PartitionFeed, classify, fold_or_park, read_again, refuse
from runstream.log.port import Log
from runstream.projections.fold import Changes, Parked, PartitionFold
from runstream.projections.store import load_needed
from runstream.scheduler.decisions import Cause
from runstream.skips import skipped_aggregate
from runstream.subjects import Subjects
from runstream.tables import PROJECTION
from runstream.telemetry.metrics import FINISHED_RUNS, PARKED_COMMITS, STARTED_RUNS

V = TypeVar("V")
logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Unstorable:
    """The commits of one partition that Postgres refuses.

    It outlives the sessions of the partition's worker, since each refusal ends one.
    """

    reasons: dict[int, str] = field(default_factory=dict)
    """Reason of each sequence to park although it can be applied."""
    careful_until: int = 0
    """Commits up to this sequence are taken in one by one."""
    trying: tuple[int, ...] = ()
    """Parked commits in the current transaction, in order."""
    untried: set[int] = field(default_factory=set)
    """Parked commits that were refused together, and must be tried one by one."""

    def blame(self, taken: int, reason: str) -> bool:
        """Record a refusal of the commits taken in up to `taken`; return False when no commit is to blame.

        Parked commits that are being tried come first: everything that was taken in before them is stored already.
        """
        trying, self.trying = self.trying, ()
        if any(sequence not in self.reasons for sequence in trying):
            self.reasons |= dict.fromkeys(trying, reason)
            if len(trying) > 1:
                self.untried |= set(trying)
            return True
        if taken in self.reasons:
            return False
        if taken <= self.careful_until:
            self.reasons[taken] = reason
        else:
            self.careful_until = taken
        return True

    def may_apply(self, sequence: int) -> bool:
        """Return whether Postgres has not refused this parked commit alone."""
        return sequence in self.untried or sequence not in self.reasons

    def try_again(self, sequences: Iterable[int]) -> None:
        """Mark parked commits as tried in one transaction, in order."""
        self.trying = tuple(sequences)
        self.untried.difference_update(self.trying)
        for sequence in self.trying:
            self.reasons.pop(sequence, None)

    def tried(self) -> None:
        """Mark the tried commits as stored, or parked again."""
        self.trying = ()


@dataclass(frozen=True, slots=True)
class Intake:
    """The fold of one partition's batches."""

    _fold: PartitionFold
    _feed: PartitionFeed
    _database: Database
    _subjects: Subjects
    _refused: Mapping[int, str]
    """The reason of each commit to park although it can be applied."""

    async def take(self, batch: Batch) -> tuple[Changes, dict[str, Cause]]:
        """Fold the batch; return its changes, and for each run the commit that touched it last."""
        if self._refused:  # before anything is loaded: that may be what Postgres refuses
            batch = replace(batch, items=refuse(batch.items, self._refused, self._subjects))
        await self._load(batch)
        causes: dict[str, Cause] = {}
        for item in fold_or_park(self._fold, batch.items, self._subjects):
            if isinstance(item, Parked):
                self._park(item)
            elif item.commit.events:
                self._note(item.commit, causes)
        return self._fold.take_changes(), causes

    def released(self, batch: Batch) -> set[str]:
        """Return the parked aggregates with a commit that the batch skips."""
        decided = (stored.commit.address for stored in batch.commits if stored.commit.address.kind == "skip")
        return {skipped_aggregate(self._subjects, address) for address in decided} & self._feed.parked

    async def retry(self, parked: Collection[tuple[int, str]], log: Log) -> tuple[Changes, dict[str, Cause]]:
        """Read parked commits (sequence and aggregate) again, in order; apply those that can be read and fit now.

        No earlier commit of their aggregates may be parked. The aggregates stay parked in the feed.
        """
        PARKED_COMMITS.add(-len(parked), PROJECTION, str(self._fold.partition))
        messages = await read_again(log, self._fold.partition, [sequence for sequence, _ in parked])
        items = classify(messages, set(), self._fold.skips)
        changes, causes = await self.take(Batch(items, self._fold.after, 0))
        changes.unparked = {m.position.sequence for m in messages} - changes.parked.keys()
        return changes, causes

    async def _load(self, batch: Batch) -> None:
        """Load what the batch touches and is not in memory.

        Looks again after each load, because the projector may have forgotten a run in the meantime.
        """
        nowhere: set[str] = set()
        while True:
            needs = self._fold.needs(batch.commits)
            wanted = (needs.runs | needs.executor_tasks | needs.configs) - nowhere
            if not wanted:
                return
            loaded = await load_needed(self._database, self._fold.partition, needs)
            nowhere |= wanted - loaded.runs.keys() - loaded.executor_tasks.keys() - loaded.configs.keys()
            _add_missing(self._fold.runs, loaded.runs)
            _add_missing(self._fold.executor_tasks, loaded.executor_tasks)
            _add_missing(self._fold.configs, loaded.configs)

    def _note(self, commit: DecodedCommit, causes: dict[str, Cause]) -> None:
        """Add an applied commit to `causes`, metrics and the process's log."""
        if commit.address.kind == "task":
            if (task := self._fold.executor_tasks.get(commit.address.id)) is not None:  # else its run was deleted
                causes[task.state.run_id] = Cause(commit.id, commit.trace)
        elif commit.address.kind == "run":
            run, partition = commit.address.id, str(self._fold.partition)
            causes[run] = Cause(commit.id, commit.trace)
            for event in commit.events:
                match event:
                    case RunStarted():
                        STARTED_RUNS.add(1, partition)
                        logger.debug("A run started", action="run_started", run=run)
                    case RunResultSet(result):
                        logger.debug("A run has its result", action="run_result_set", run=run, result=result.value)
                    case RunFinished():
                        FINISHED_RUNS.add(1, partition, self._fold.runs[run].state.result.value)

    def _park(self, parked: Parked) -> None:
        self._feed.park(parked.aggregate)
        PARKED_COMMITS.add(1, PROJECTION, str(self._fold.partition))
        logger.error(
            "A commit was parked",
            action="commit_parked",
            partition=self._fold.partition,
            sequence=parked.sequence,
            aggregate=parked.aggregate,
            reason=parked.reason,
        )


def _add_missing(known: dict[str, V], loaded: Mapping[str, V]) -> None:
    known.update({key: value for key, value in loaded.items() if key not in known})
