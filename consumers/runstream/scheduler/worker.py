"""One partition's worker: read a batch, fold it, then decide and append while the batch is projected.

It is the only one of its partition as long as its ownership holds; that another may believe the same for a
moment does no harm: the checkpoint fences the projection, and every append names what it was based on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import orjson
import structlog

from runstream.bounded import heard
from runstream.database.database import Database
from runstream.database.failures import UnstorableError
from runstream.feed import Batch, PartitionFeed, read_skips
from runstream.jetstream.messaging import Progress, Questions
from runstream.log.port import Log, RawMessage, Reader
from runstream.projections.fold import Changes, PartitionFold
from runstream.projections.parked import ParkedCommit, deciding, list_parked
from runstream.projections.store import ProjectionStore, load_partition, storable
from runstream.scheduler.board import ExecutorBoard
from runstream.scheduler.deadlines import Deadlines
from runstream.scheduler.deciding import Cause, Decider, Decision
from runstream.scheduler.intake import Intake
from runstream.scheduler.projector import Projector
from runstream.scheduler.rounds import append_decisions, append_losses
from runstream.scheduler.turns import Turns
from runstream.scheduler.unstorable import Unstorable
from runstream.tables import PROJECTION
from runstream.telemetry.metrics import PARKED_COMMITS, PROJECTION_LAG_COMMITS, PROJECTION_LAG_SECONDS

logger = structlog.get_logger(__name__)

BATCH = 500
ROUNDS = 8
"""How many rounds of decisions may be on their way to the log at once."""
RETRY_SECONDS = 0.5
"""After a round that did not reach the log."""
NAP_SECONDS = 30.0
"""The longest sleep until a time comes: a clock that was set, and a machine that stood still, are noticed then."""
MAX_CONFIGS = 1_000
"""Run configs kept in memory, beyond which those are dropped that are in the rows and of no active run."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the workers of one process share."""

    log: Log
    database: Database
    turns: Turns
    board: ExecutorBoard
    deadlines: Deadlines
    questions: Questions
    clock: Callable[[], datetime]
    """The time of decisions."""


class PartitionWorker:
    """Schedules and projects one partition, from its checkpoint on."""

    def __init__(self, partition: int, surroundings: Surroundings) -> None:
        self.partition = partition
        self.progress = Progress()
        """Of the projection; it outlives a worker that is started again."""
        self._around = surroundings
        self._session: _Session | None = None

    async def run(self) -> None:
        """Work until cancelled. Raises FencedError when another worker has the partition.

        A batch that fails for what is in it is gone through commit by commit, and the one that fails is parked.
        """
        unstorable = Unstorable()
        while True:
            try:
                await self._work(unstorable)
            except* UnstorableError as group:
                reason = str(group.exceptions[0])
                session, self._session = self._session, None
                if session is None or not unstorable.blame(session.taken, reason):
                    raise  # the worker is started again, and the partition stands still
                logger.warning(
                    "A batch cannot be stored", action="batch_unstorable", partition=self.partition, error=reason
                )

    async def _work(self, unstorable: Unstorable) -> None:
        around = self._around
        fold = await load_partition(around.database, self.partition, around.log.epoch)
        fold.skips = await read_skips(around.log, self.partition, await around.log.end(self.partition))
        async with around.database.snapshot() as transaction:
            parked = await list_parked(transaction, self.partition, around.log.epoch)
        try:
            async with around.log.read(self.partition, fold.after) as reader:
                around.turns.own(self.partition, self._granted)
                self._session = _Session(fold, reader, parked, around, self.progress, unstorable)
                await self._session.run()
        finally:
            around.turns.disown(self.partition)
            for gauge in (PROJECTION_LAG_COMMITS, PROJECTION_LAG_SECONDS, PARKED_COMMITS):
                gauge.forget(PROJECTION, str(self.partition))

    async def drain(self) -> None:
        """Begin nothing more; returns when what was begun is in the log and in the projection."""
        if self._session is not None:
            await self._session.drain()

    @property
    def position(self) -> int | None:
        """The last sequence that was taken in; None before the partition was loaded."""
        return self._session.at if self._session is not None else None

    def retry_parked(self) -> None:
        """Somebody asks that parked commits are tried again."""
        if self._session is not None:
            self._session.retry.set()

    def _granted(self, run_id: str) -> None:
        """A task of the run that waited has got room at an executor."""
        if self._session is not None:
            self._session.decider.granted(run_id)
            self._session.due.set()

    def executor_gone(self, executor_id: str, reason: str) -> None:
        """An executor was given up."""
        if self._session is not None:
            self._session.decider.executor_gone(executor_id, reason)
            self._session.due.set()


class _Session:
    """The work on one partition between two loads of its state."""

    def __init__(
        self,
        fold: PartitionFold,
        reader: Reader,
        parked: Sequence[ParkedCommit],
        around: Surroundings,
        progress: Progress,
        unstorable: Unstorable,
    ) -> None:
        self._around = around
        self._fold = fold
        self._reader = reader
        self._feed = PartitionFeed(reader, {one.aggregate for one in parked}, fold.skips)
        PARKED_COMMITS.set(len(parked), PROJECTION, str(fold.partition))
        self._unstorable = unstorable
        self._intake = Intake(fold, self._feed, around.database, around.log.subjects, unstorable.reasons)
        self._progress = progress
        self._projector = Projector(ProjectionStore(around.database), self._projected, progress.failed)
        self.decider = Decider(fold, around.turns, around.board.gone, around.board.last_seen)
        self.due = asyncio.Event()
        self.retry = asyncio.Event()
        self._intaking = asyncio.Lock()
        self._rounds = asyncio.Semaphore(ROUNDS)
        self._draining = False
        self.taken = fold.after
        """The last sequence of the batch that is being taken in, or was."""
        self._took = asyncio.Event()

    @property
    def at(self) -> int:
        """The last sequence that was taken in."""
        return self._fold.after

    async def run(self) -> None:
        """Until cancelled, or until something of it fails."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._projector.run())
            tasks.create_task(self._decide(tasks))
            tasks.create_task(self._retry_parked())
            tasks.create_task(self._answer())
            self._around.deadlines.arm(task.state for task in self._fold.executor_tasks.values())
            self.due.set()
            while True:
                careful = self._fold.after < self._unstorable.careful_until
                messages = await self._reader.next_batch(1 if careful else BATCH)
                await self._take(messages, careful=careful)

    async def drain(self) -> None:
        """End the rounds, then the reading, then the projecting. Nothing goes on after it."""
        self._draining = True
        for _ in range(ROUNDS):
            await self._rounds.acquire()
        await self._intaking.acquire()
        await self._projector.drained()

    async def _take(self, messages: list[RawMessage], *, careful: bool) -> None:
        async with self._intaking:
            # What is parked may have changed while this waited.
            batch = self._feed.batch(messages)
            self.taken = batch.last
            with storable():
                changes, causes = await self._intake.take(batch)
                if released := self._intake.released(batch):
                    await self._release(released, changes, causes, careful=careful)
                await self._observe(changes, causes)
            if careful:
                await self._projector.drained()
                self._unstorable.tried()
        took, self._took = self._took, asyncio.Event()
        took.set()
        self._note_lag(changes, batch)

    async def _answer(self) -> None:
        """Say why runs wait, to whoever asks, until cancelled."""
        around = self._around
        async with around.questions.answering(around.log.subjects.questions(self._fold.partition), self._explained):
            await asyncio.Event().wait()

    async def _explained(self, question: bytes) -> bytes:
        """Why a run waits, as of a place in the log at least; null for a run that is not known."""
        asked = orjson.loads(question)
        while self.at < asked["at_least"]:
            await self._took.wait()
        async with self._intaking:
            return msgspec.json.encode(self.decider.why(asked["run"], self._around.clock()))

    async def _release(
        self, aggregates: set[str], changes: Changes, causes: dict[str, Cause], *, careful: bool
    ) -> None:
        """Try again what is parked of these aggregates, and add to the changes what comes of it."""
        again = await self._parked()
        again |= {(one.sequence, one.aggregate) for one in changes.parked.values()}
        again = {one for one in again if one[1] in aggregates}
        if careful:
            self._unstorable.trying = tuple(sorted(sequence for sequence, _ in again))
        later, because = await self._intake.retry(again, self._around.log)
        self._feed.unpark(aggregates - {one.aggregate for one in later.parked.values()})
        changes.merge(later)
        causes.update(because)

    async def _retry_parked(self) -> None:
        around, partition = self._around, self._fold.partition
        while True:
            if not self._unstorable.untried:
                await self.retry.wait()
            async with deciding(around.database, partition), self._intaking:
                self._fold.skips.merge(await read_skips(around.log, partition, await around.log.end(partition)))
                parked = sorted(await self._parked())
                if self.retry.is_set():
                    self.retry.clear()
                    left = await self._try_again(parked)
                else:
                    left = await self._try_one_by_one(parked)
                self._feed.unpark({aggregate for _, aggregate in parked} - left.keys())
                logger.info(
                    "Parked commits were tried again",
                    action="parked_retried",
                    partition=partition,
                    applied=len(parked) - left.total(),
                    left=left.total(),
                )

    async def _try_one_by_one(self, parked: Sequence[tuple[int, str]]) -> Counter[str]:
        """Apply the untried of the parked commits (sequence and aggregate): Postgres refused them when tried at once.

        Return how many stay parked of each aggregate.
        """
        left: Counter[str] = Counter()
        for sequence, aggregate in parked:
            if sequence in self._unstorable.untried and aggregate not in left:
                left += await self._try_again([(sequence, aggregate)])
            else:  # nothing can be applied behind what stays parked
                left[aggregate] += 1
        self._unstorable.untried.clear()
        return left

    async def _try_again(self, parked: Sequence[tuple[int, str]]) -> Counter[str]:
        """Apply parked commits in one transaction; return how many stay parked of each aggregate."""
        self._unstorable.try_again(sequence for sequence, _ in parked)
        with storable():
            changes, causes = await self._intake.retry(parked, self._around.log)
            left = Counter(one.aggregate for one in changes.parked.values())
            await self._observe(changes, causes)
        await self._projector.drained()
        self._unstorable.tried()
        return left

    async def _parked(self) -> set[tuple[int, str]]:
        """What is parked, up to what was given to the projector."""
        await self._projector.drained()
        async with self._around.database.snapshot() as transaction:
            listed = await list_parked(transaction, self._fold.partition, self._around.log.epoch)
        return {(one.position.sequence, one.aggregate) for one in listed}

    async def _observe(self, changes: Changes, causes: dict[str, Cause]) -> None:
        self.decider.observe(changes, causes)
        self.due.set()
        self._around.deadlines.arm(changed.now.state for changed in changes.executor_tasks.values())
        self._around.board.observe(changes)
        await self._projector.put(changes)

    async def _decide(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._something_due()
            await self._rounds.acquire()
            self.due.clear()
            if self._draining:
                self._rounds.release()
                return
            decisions = self.decider.decisions(self._around.clock())
            if decisions or self.decider.has_losses:
                tasks.create_task(self._round(decisions))
            else:
                self._rounds.release()

    async def _something_due(self) -> None:
        """Wait until something happened, or a time has come that a run waits for."""
        while not self.due.is_set():
            first = self.decider.next_due
            left = None if first is None else (first - self._around.clock()).total_seconds()
            if left is not None and left <= 0:
                return
            await heard(self.due, None if left is None else min(left, NAP_SECONDS))

    async def _round(self, decisions: list[Decision]) -> None:
        around = self._around
        try:
            lost = await append_losses(around.log, self.decider, around.clock())
            decided = await append_decisions(around.log, self.decider, decisions, around.clock)
            if not (lost and decided):
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._rounds.release()
        self.due.set()

    def _projected(self, changes: Changes) -> None:
        """Forget what has ended and is in the rows."""
        self._progress.moved()
        for run_id in changes.runs:
            tracked = self._fold.runs.get(run_id)
            if tracked is None or not tracked.state.archived or self._projector.waits_for(run_id):
                continue
            del self._fold.runs[run_id]
            for key in (key for task in tracked.state.tasks.values() for key in task.executions):
                self._fold.executor_tasks.pop(key, None)
            self.decider.forget(run_id)
        if len(self._fold.configs) > MAX_CONFIGS:
            # One that waits is in no row yet, and the run that needs it may come with the next batch.
            used = {tracked.state.run_config for tracked in self._fold.runs.values()} | {
                *self._projector.waiting_configs
            }
            for key in [key for key in self._fold.configs if key not in used][: MAX_CONFIGS // 2]:
                del self._fold.configs[key]
        behind = self._reader.pending() + self._projector.behind
        PROJECTION_LAG_COMMITS.set(behind, PROJECTION, str(self._fold.partition))
        if not behind:
            PROJECTION_LAG_SECONDS.set(0, PROJECTION, str(self._fold.partition))

    def _note_lag(self, changes: Changes, batch: Batch) -> None:
        if batch.commits:
            oldest = (self._around.clock() - batch.commits[0].stored_at).total_seconds()
            PROJECTION_LAG_SECONDS.set(max(oldest, 0.0), PROJECTION, str(changes.partition))
        PROJECTION_LAG_COMMITS.set(self._reader.pending() + self._projector.behind, PROJECTION, str(changes.partition))
