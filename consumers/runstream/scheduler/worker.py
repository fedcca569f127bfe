"""The worker of one partition: read a batch, fold it, then decide and append while the batch is projected.

The owner of a partition runs its only worker. For a moment two processes may both believe to be the owner. That is
harmless: the checkpoint fences the projection, and every append names the sequence that it is based on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
import orjson
import structlog

from runstream.database.database import Database
from runstream.database.failures import UnstorableError
from runstream.feed import PartitionFeed, read_skips
from runstream.jetstream.messaging import ConsumerProgress, Questions
from runstream.lifecycle import BackgroundTasks, wait_for_event
from runstream.log.port import Log, RawMessage, Reader
from runstream.policies import Policies
from runstream.projections.fold import Changes, PartitionFold
from runstream.projections.parked import ParkedCommit, list_parked, parked_lock
from runstream.projections.store import ProjectionStore, load_partition, storable
from runstream.scheduler.append import append_decisions, append_losses
from runstream.scheduler.decisions import Cause, Decider, Decision
from runstream.scheduler.executor_registry import ExecutorRegistry
from runstream.scheduler.fair_queue import FairQueue
from runstream.scheduler.intake import Intake, Unstorable
from runstream.scheduler.projector import Projector
from runstream.scheduler.retention import Retention
from runstream.scheduler.timeouts import TaskTimeouts
from runstream.tables import PROJECTION
from runstream.telemetry.metrics import DECIDED_RUNS, PARKED_COMMITS, PROJECTION_LAG_COMMITS, PROJECTION_LAG_SECONDS

logger = structlog.get_logger(__name__)

BATCH = 500
"""Maximum number of commits in a batch."""
ROUNDS = 8
"""Maximum number of rounds of decisions in flight to the log."""
RETRY_SECONDS = 0.5
"""Pause after a round that did not reach the log."""
NAP_SECONDS = 30.0
"""The longest sleep until a run is due: a clock that was set, or a suspended machine, is noticed after it."""
MAX_CONFIGS = 1_000
"""Run configs kept in memory; beyond that, those are dropped that are in the database and of no active run."""


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The context shared by the workers of one process."""

    log: Log
    database: Database
    queue: FairQueue
    executors: ExecutorRegistry
    timeouts: TaskTimeouts
    questions: Questions
    clock: Callable[[], datetime]
    """The clock of decisions."""
    policies: Policies = field(default_factory=Policies)
    """What is kept of ended runs."""


class PartitionWorker:
    """The worker that schedules and projects one partition, from its checkpoint on."""

    def __init__(self, partition: int, context: WorkerContext) -> None:
        self.partition = partition
        self.progress = ConsumerProgress()
        """The progress of the projection, over restarts of `run`."""
        self._context = context
        self._session: _Session | None = None
        self._retry = asyncio.Event()
        """Set while a request to retry parked commits is open: it outlives the sessions, each refusal ends one."""

    async def run(self) -> None:
        """Work until cancelled. Raises FencedError when another process has the partition.

        A batch that Postgres refuses is read again commit by commit, and the refused commit is parked.
        """
        unstorable = Unstorable()
        try:
            while True:
                try:
                    await self._work(unstorable)
                except* UnstorableError as group:
                    reason = str(group.exceptions[0])
                    session, self._session = self._session, None
                    if session is None or not unstorable.blame(session.taken, reason):
                        raise  # no commit is to blame: the worker is restarted, and makes no progress
                    logger.warning(
                        "A batch cannot be stored", action="batch_unstorable", partition=self.partition, error=reason
                    )
        finally:
            if unstorable.trying or unstorable.untried:
                self._retry.set()  # a failure that no commit is to blame for has cut the retry off

    async def _work(self, unstorable: Unstorable) -> None:
        context = self._context
        fold = await load_partition(context.database, self.partition, context.log.epoch)
        fold.skips = await read_skips(context.log, self.partition, await context.log.end(self.partition))
        async with context.database.snapshot() as transaction:
            parked = await list_parked(transaction, self.partition, context.log.epoch)
        try:
            async with context.log.read(self.partition, fold.after) as reader:
                context.queue.own(self.partition, self._slot_reserved)
                self._session = _Session(fold, reader, parked, context, self.progress, unstorable, self._retry)
                await self._session.run()
        finally:
            context.queue.disown(self.partition)
            for gauge in (PROJECTION_LAG_COMMITS, PROJECTION_LAG_SECONDS, PARKED_COMMITS):
                gauge.forget(PROJECTION, str(self.partition))

    async def drain(self) -> None:
        """Start nothing new; return when everything in flight is in the log and in the projection."""
        if self._session is not None:
            await self._session.drain()

    @property
    def position(self) -> int | None:
        """The last sequence that was taken in; None before the partition is loaded."""
        return self._session.position if self._session is not None else None

    def retry_parked(self) -> None:
        """Try the parked commits again, as soon as the partition is loaded."""
        self._retry.set()

    def _slot_reserved(self, run_id: str) -> None:
        if self._session is not None:
            self._session.decider.slot_reserved(run_id)
            self._session.due.set()

    def executor_gone(self, executor_id: str, reason: str) -> None:
        """Declare the executor and its tasks of this partition lost."""
        if self._session is not None:
            self._session.decider.executor_gone(executor_id, reason)
            self._session.due.set()


@dataclass(eq=False)
class _Session:
    """The work on one partition between two loads of its state."""

    fold: PartitionFold
    reader: Reader
    parked: Sequence[ParkedCommit]
    context: WorkerContext
    progress: ConsumerProgress
    unstorable: Unstorable
    retry: asyncio.Event
    """Set while a request to retry parked commits is open."""

    def __post_init__(self) -> None:
        fold, context = self.fold, self.context
        self._feed = PartitionFeed(self.reader, {one.aggregate for one in self.parked}, fold.skips)
        PARKED_COMMITS.set(len(self.parked), PROJECTION, str(fold.partition))
        self._intake = Intake(fold, self._feed, context.database, context.log.subjects, self.unstorable.reasons)
        self._retention = Retention(fold.partition, context.log, context.database, context.policies, context.clock)
        self._projector = Projector(ProjectionStore(context.database), self._projected, self.progress.failed)
        self.decider = Decider(fold, context.queue, context.executors.gone, context.executors.loss)
        self.due = asyncio.Event()
        self._intake_lock = asyncio.Lock()
        self._rounds = asyncio.Semaphore(ROUNDS)
        self._draining = False
        self.taken = fold.after
        """The last sequence of the newest batch, which may still be on its way into the fold."""
        self._batch_done = asyncio.Event()
        """Set after the next batch, and then replaced by a new event."""

    @property
    def position(self) -> int:
        """The last sequence that was taken in."""
        return self.fold.after

    async def run(self) -> None:
        """Work until cancelled, or until a part fails."""
        async with BackgroundTasks() as background:
            background.keep(self._projector.run())
            background.once(self._decide(background))
            background.keep(self._retry_parked())
            background.keep(self._answer_why())
            background.keep(self._retention.run())
            self.context.timeouts.arm(task.state for task in self.fold.executor_tasks.values())
            self.due.set()
            while True:
                careful = self.fold.after < self.unstorable.careful_until
                messages = await self.reader.next_batch(1 if careful else BATCH)
                await self._take(messages, careful=careful)

    async def drain(self) -> None:
        """End the rounds, then the reading, then the projecting; none of them continues afterwards."""
        self._draining = True
        await self._retention.drain()
        for _ in range(ROUNDS):
            await self._rounds.acquire()
        await self._intake_lock.acquire()
        await self._projector.drained()

    async def _take(self, messages: list[RawMessage], *, careful: bool) -> None:
        async with self._intake_lock:
            # Only under the lock: a retry may have changed what is parked.
            batch = self._feed.batch(messages)
            self.taken = batch.last
            with storable():
                changes, causes = await self._intake.take(batch)
                if released := self._intake.released(batch):
                    await self._release(released, changes, causes, careful=careful)
                await self._observe(changes, causes)
            if careful:
                await self._projector.drained()
                self.unstorable.tried()
        done, self._batch_done = self._batch_done, asyncio.Event()
        done.set()
        if commits := batch.commits:
            oldest = (self.context.clock() - commits[0].stored_at).total_seconds()
            PROJECTION_LAG_SECONDS.set(max(oldest, 0.0), PROJECTION, str(self.fold.partition))
        self._note_lag()

    async def _answer_why(self) -> None:
        """Answer questions why runs wait, until cancelled."""
        context = self.context
        async with context.questions.answering(context.log.subjects.questions(self.fold.partition), self._explained):
            await asyncio.Event().wait()

    async def _explained(self, question: bytes) -> bytes:
        """Return as JSON why a run waits, no earlier than at a position of the log; null for an unknown run."""
        asked = orjson.loads(question)
        while self.position < asked["at_least"]:
            await self._batch_done.wait()
        async with self._intake_lock:
            return msgspec.json.encode(self.decider.why(asked["run"], self.context.clock()))

    async def _release(
        self, aggregates: set[str], changes: Changes, causes: dict[str, Cause], *, careful: bool
    ) -> None:
        """Try the parked commits of these aggregates again, and merge the result into the changes."""
        again = await self._parked()
        again |= {(one.sequence, one.aggregate) for one in changes.parked.values()}
        again = {one for one in again if one[1] in aggregates}
        if careful:
            self.unstorable.trying = tuple(sorted(sequence for sequence, _ in again))
        later, because = await self._intake.retry(again, self.context.log)
        self._feed.unpark(aggregates - {one.aggregate for one in later.parked.values()})
        changes.merge(later)
        causes.update(because)

    async def _retry_parked(self) -> None:
        context, partition = self.context, self.fold.partition
        while True:
            if not self.unstorable.untried:
                await self.retry.wait()
            async with parked_lock(context.database, partition), self._intake_lock:
                self.fold.skips.merge(await read_skips(context.log, partition, await context.log.end(partition)))
                parked = sorted(await self._parked())
                if not parked:  # as after most starts: no transaction for nothing
                    self.retry.clear()
                    self.unstorable.untried.clear()
                    continue
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
        """Apply those parked commits (sequence and aggregate) that Postgres has not refused alone, one by one.

        More are parked by now than were refused together: those that came later, behind one of these.

        Return how many stay parked of each aggregate.
        """
        left: Counter[str] = Counter()
        for sequence, aggregate in parked:
            if aggregate not in left and self.unstorable.may_apply(sequence):
                left += await self._try_again([(sequence, aggregate)])
            else:  # nothing can be applied behind what stays parked
                left[aggregate] += 1
        self.unstorable.untried.clear()
        return left

    async def _try_again(self, parked: Sequence[tuple[int, str]]) -> Counter[str]:
        """Apply parked commits in one transaction; return how many stay parked of each aggregate."""
        self.unstorable.try_again(sequence for sequence, _ in parked)
        with storable():
            changes, causes = await self._intake.retry(parked, self.context.log)
            left = Counter(one.aggregate for one in changes.parked.values())
            await self._observe(changes, causes)
        await self._projector.drained()
        self.unstorable.tried()
        return left

    async def _parked(self) -> set[tuple[int, str]]:
        """Return sequence and aggregate of all parked commits, after everything is projected."""
        await self._projector.drained()
        async with self.context.database.snapshot() as transaction:
            listed = await list_parked(transaction, self.fold.partition, self.context.log.epoch)
        return {(one.position.sequence, one.aggregate) for one in listed}

    async def _observe(self, changes: Changes, causes: dict[str, Cause]) -> None:
        # Decide first: the projector may be full and wait for Postgres, and decisions need only the log.
        self.decider.observe(changes, causes)
        self.due.set()
        self.context.timeouts.arm(changed.now.state for changed in changes.executor_tasks.values())
        self.context.executors.observe(changes)
        await self._projector.put(changes)

    async def _decide(self, background: BackgroundTasks) -> None:
        while True:
            await self._something_due()
            # With all rounds in flight, what becomes due is gathered, and makes one larger group commit.
            await self._rounds.acquire()
            self.due.clear()
            if self._draining:
                self._rounds.release()
                return
            decisions = self.decider.decisions(self.context.clock())
            if decisions or self.decider.has_losses:
                background.once(self._round(decisions))
            else:
                self._rounds.release()

    async def _something_due(self) -> None:
        """Wait until something happened, or a run is due."""
        while not self.due.is_set():
            first = self.decider.next_due
            left = None if first is None else (first - self.context.clock()).total_seconds()
            if left is not None and left <= 0:
                return
            await wait_for_event(self.due, None if left is None else min(left, NAP_SECONDS))

    async def _round(self, decisions: list[Decision]) -> None:
        log, decider, clock = self.context.log, self.decider, self.context.clock
        try:
            losses = await append_losses(log, [*decider.losses(clock())])
            losses.settle(decider)
            outcome = await append_decisions(log, decisions, lambda accepted: decider.follow_ups(accepted, clock()))
            outcome.settle(decider)
            DECIDED_RUNS.add(outcome.appended, str(self.fold.partition))
            if not (losses.reachable and outcome.reachable):
                # The round keeps its place meanwhile, so that at most `ROUNDS` of them try a log that is away.
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._rounds.release()
        self.due.set()

    def _projected(self, changes: Changes) -> None:
        """Forget ended runs that are in the database."""
        self.progress.moved()
        self._retention.projected(changes)
        for run_id in changes.runs:
            tracked = self.fold.runs.get(run_id)
            if tracked is None or not tracked.state.archived or self._projector.waits_for(run_id):
                continue
            del self.fold.runs[run_id]
            for key in (key for task in tracked.state.tasks.values() for key in task.executions):
                self.fold.executor_tasks.pop(key, None)
            self.decider.forget(run_id)
        if len(self.fold.configs) > MAX_CONFIGS:
            # A buffered one is not in the database yet, and the run that needs it may come with the next batch.
            used = {tracked.state.run_config for tracked in self.fold.runs.values()} | {
                *self._projector.waiting_configs
            }
            for key in [key for key in self.fold.configs if key not in used][: MAX_CONFIGS // 2]:
                del self.fold.configs[key]
        if not self._note_lag():
            PROJECTION_LAG_SECONDS.set(0, PROJECTION, str(self.fold.partition))

    def _note_lag(self) -> int:
        """Set the metric of the commits that are not projected; return their number."""
        behind = self.reader.pending() + self._projector.behind
        PROJECTION_LAG_COMMITS.set(behind, PROJECTION, str(self.fold.partition))
        return behind
