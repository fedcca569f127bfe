"""From a batch of the feed to the partition's state: what is missing is loaded, what does not fit is parked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import structlog

from runstream.commits import Commit, StoredCommit
from runstream.database.database import Database
from runstream.events.run import RunFinished, RunResultSet, RunStarted
from runstream.feed.feed import Batch, PartitionFeed, classify, read_again
from runstream.log.port import Log
from runstream.projections.fold import Changes, PartitionFold, UnfitCommitError
from runstream.projections.loading import load_needed
from runstream.projections.parked import ParkedCommit
from runstream.scheduler.deciding import Cause
from runstream.subjects import Subjects
from runstream.tables import PROJECTION
from runstream.telemetry.metrics import FINISHED_RUNS, PARKED_COMMITS, STARTED_RUNS

V = TypeVar("V")
logger = structlog.get_logger(__name__)


class Intake:
    """Folds batches of one partition."""

    def __init__(self, fold: PartitionFold, feed: PartitionFeed, database: Database, subjects: Subjects) -> None:
        self._fold = fold
        self._feed = feed
        self._database = database
        self._subjects = subjects
        self.refused: dict[int, str] = {}
        """Commits that are parked although they can be applied, with the reason: they cannot be stored."""

    async def take(self, batch: Batch) -> tuple[Changes, dict[str, Cause]]:
        """Fold the batch; what it changed, and for each run the commit that touched it last."""
        await self._load(batch)
        causes: dict[str, Cause] = {}
        parked = {entry.sequence: entry for entry in batch.parked}
        commits = {stored.position.sequence: stored for stored in batch.commits}
        for sequence in sorted({*parked, *commits}):
            if (entry := parked.get(sequence)) is not None:
                self._park(sequence, entry.subject, entry.aggregate, entry.reason)
            elif (reason := self.refused.get(sequence)) is not None:
                self._park_commit(commits[sequence], reason)
            else:
                self._apply(commits[sequence], causes)
        return self._fold.take_changes(), causes

    async def retry(self, parked: Sequence[ParkedCommit], log: Log) -> tuple[Changes, dict[str, Cause]]:
        """Read parked commits again, in order, and apply those that can be read and fit now."""
        partition = self._fold.partition
        for aggregate in {entry.aggregate for entry in parked}:
            self._feed.unpark(aggregate)
        messages = await read_again(log, partition, [entry.position.sequence for entry in parked])
        commits, still = classify(messages, set())
        changes, causes = await self.take(Batch(commits, still, self._fold.after, 0))
        left = {entry.sequence for entry in changes.parked}
        changes.unparked = [m.position.sequence for m in messages if m.position.sequence not in left]
        PARKED_COMMITS.set(len(left), PROJECTION, str(partition))
        logger.info(
            "Parked commits were tried again",
            action="parked_retried",
            partition=partition,
            applied=len(changes.unparked),
            left=len(left),
        )
        return changes, causes

    async def _load(self, batch: Batch) -> None:
        """Load what the batch touches and is not in memory; again, if something was forgotten meanwhile."""
        asked: set[str] = set()
        while True:
            needs = self._fold.needs(batch.commits)
            wanted = needs.runs | needs.executor_tasks | needs.configs
            if wanted <= asked:
                return
            asked |= wanted
            loaded = await load_needed(self._database, self._fold.partition, needs)
            _add_missing(self._fold.runs, loaded.runs)
            _add_missing(self._fold.executor_tasks, loaded.executor_tasks)
            _add_missing(self._fold.configs, loaded.configs)

    def _apply(self, stored: StoredCommit, causes: dict[str, Cause]) -> None:
        commit = stored.commit
        try:
            self._fold.apply(stored)
        except UnfitCommitError as error:
            self._park_commit(stored, str(error))
            return
        if commit.address.kind == "task":
            causes[self._fold.executor_tasks[commit.address.id].state.run_id] = Cause(commit.id, commit.trace)
        elif commit.address.kind == "run":
            causes[commit.address.id] = Cause(commit.id, commit.trace)
            self._tell(commit)

    def _tell(self, commit: Commit) -> None:
        run, partition = commit.address.id, str(self._fold.partition)
        for event in commit.events:
            match event:
                case RunStarted():
                    STARTED_RUNS.add(1, partition)
                    logger.debug("A run started", action="run_started", run=run)
                case RunResultSet(result):
                    logger.debug("A run has its result", action="run_result_set", run=run, result=result.value)
                case RunFinished():
                    FINISHED_RUNS.add(1, partition, self._fold.runs[run].state.result.value)
                case _:
                    continue

    def _park_commit(self, stored: StoredCommit, reason: str) -> None:
        address = stored.commit.address
        self._park(stored.position.sequence, self._subjects.of(address), address.aggregate, reason)

    def _park(self, sequence: int, subject: str, aggregate: str, reason: str) -> None:
        self._fold.park(sequence, subject, aggregate, reason)
        self._feed.park(aggregate)
        PARKED_COMMITS.add(1, PROJECTION, str(self._fold.partition))
        logger.error(
            "A commit was parked",
            action="commit_parked",
            partition=self._fold.partition,
            sequence=sequence,
            aggregate=aggregate,
            reason=reason,
        )


def _add_missing(known: dict[str, V], loaded: Mapping[str, V]) -> None:
    known.update({key: value for key, value in loaded.items() if key not in known})
