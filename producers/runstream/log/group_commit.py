"""Group commit: commits of one partition that are ready together go to disk together.

A few commits are published one by one, more as one atomic batch. While one group is in flight, the next one gathers.
The commits of a refused batch are published one by one, so that only the conflicting commit is refused. A commit whose
caller is cancelled before it is sent is not sent.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import nats.errors
import structlog
from nats.aio.client import Client

from runstream.jetstream.failover import answers_of
from runstream.jetstream.publisher import Ack, Publisher, PublishOutcome, Refused, Unanswered
from runstream.log.port import MAX_BATCH_COMMITS
from runstream.telemetry.metrics import APPEND_DURATION, APPENDED_COMMITS

MAX_BATCH_BYTES = 4 << 20
PLAIN_COMMITS = 8
"""Maximum size of a group without a batch: a batch takes 2.6 ms, concurrent plain publishes 0.3 ms each."""
QUEUE_COMMITS = 10_000
"""Maximum number of queued commits of one partition, at which `submit` waits."""
ANSWER_SECONDS = 1.5
"""Half of the time after which the connection leaves a silent server: the second attempt decides."""
_ELECTION_ANSWER_SECONDS = 0.5
"""The same for further attempts in a cluster: a commit that is sent while its stream has no leader gets no answer."""
log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class PendingCommit:
    """A commit in flight; `outcome` resolves to its result."""

    aggregate: str
    subject: str
    body: bytes
    headers: dict[str, str]
    outcome: asyncio.Future[PublishOutcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, outcome: PublishOutcome) -> None:
        """Set the outcome, unless the caller has left."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class GroupCommitter:
    """The sender of one partition's commits; `run` is its task."""

    def __init__(self, nc: Client, publisher: Publisher, partition: int) -> None:
        self._nc = nc
        self._publisher = publisher
        self._label = str(partition)
        self._queue: asyncio.Queue[PendingCommit] = asyncio.Queue(QUEUE_COMMITS)
        self._left: deque[PendingCommit] = deque()
        """Commits taken from the queue that belong in a later group."""
        self._group: list[PendingCommit] = []
        self.silent = 0
        """Number of consecutive groups without an answer from this server, of any commits: a commit that comes while
        others are unanswered waits less."""
        self._reconnects = 0

    async def submit(self, pending: PendingCommit) -> None:
        """Queue a commit; wait while the queue is full."""
        if self._queue.full():
            await self._queue.put(pending)
        else:
            self._queue.put_nowait(pending)

    async def run(self) -> None:
        """Send one group after the other until cancelled; commits that are left then are unanswered."""
        try:
            while True:
                self._group = await self._gather()
                if self._group:
                    await self._send(self._group)
        finally:
            rest = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
            for pending in (*self._group, *self._left, *rest):
                pending.settle(Unanswered("the log was closed"))

    async def _gather(self) -> list[PendingCommit]:
        """Wait for a commit, then take the next group: queued commits, bounded, at most one of each aggregate."""
        waiting, self._left = self._left, deque()
        if not waiting:
            waiting.append(await self._queue.get())
        group: list[PendingCommit] = []
        aggregates: set[str] = set()
        size = 0
        while waiting or not self._queue.empty():
            pending = waiting.popleft() if waiting else self._queue.get_nowait()
            if pending.outcome.done():
                continue
            size += len(pending.body)
            if group and (size > MAX_BATCH_BYTES or len(group) == MAX_BATCH_COMMITS):
                self._left.append(pending)
                break
            if pending.aggregate in aggregates:
                self._left.append(pending)
                continue
            aggregates.add(pending.aggregate)
            group.append(pending)
        self._left.extend(waiting)
        return group

    async def _send(self, group: list[PendingCommit]) -> None:
        begun = time.perf_counter()
        try:
            if not self._nc.is_connected:
                outcomes: list[PublishOutcome] = [Unanswered("not connected to NATS", sent=False)] * len(group)
            elif len(group) > PLAIN_COMMITS:
                outcomes = await self._batch(group)
            else:
                outcomes = await self._one_by_one(group)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            # The client library cancels waiters when it reconnects. This task must continue: nothing else sends the
            # partition's commits.
            outcomes = [Unanswered("the connection to NATS was lost")] * len(group)
        except Exception as error:
            if not isinstance(error, nats.errors.Error | OSError):
                log.exception("sending commits failed", action="commits_not_sent", partition=self._label)
            outcomes = [Unanswered(str(error) or type(error).__name__)] * len(group)
        self._note(outcomes, time.perf_counter() - begun)
        for pending, outcome in zip(group, outcomes, strict=True):
            pending.settle(outcome)
        APPEND_DURATION.record(time.perf_counter() - begun, self._label)
        APPENDED_COMMITS.add(sum(isinstance(outcome, Ack) for outcome in outcomes), self._label)

    def _note(self, outcomes: Sequence[PublishOutcome], seconds: float) -> None:
        """Report answers and silence to the connection, which leaves a server that does not answer appends."""
        what = f"partition {self._label}"
        answers = answers_of(self._nc)
        if self._nc.stats["reconnects"] != self._reconnects:
            self._reconnects, self.silent = self._nc.stats["reconnects"], 0
        if any(not isinstance(outcome, Unanswered) for outcome in outcomes) or not self._nc.is_connected:
            self.silent = 0
        else:
            self.silent += 1
        if any(isinstance(outcome, Ack) for outcome in outcomes):
            answers.answered(what)
            answers.stored()
            return
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                # A leader without peers refuses a repeated commit, which it holds in memory and never stores.
                answers.doubtful(what, outcome.why)
            elif isinstance(outcome, Unanswered) and outcome.sent and self._nc.is_connected:
                answers.unanswered(what, seconds, outcome.why)
            return

    async def _one_by_one(self, group: list[PendingCommit]) -> list[PublishOutcome]:
        futures = [await self._publisher.publish(p.subject, p.body, p.headers) for p in group]
        return await self._publisher.outcomes(futures, self._answer_seconds())

    def _answer_seconds(self) -> float:
        return _ELECTION_ANSWER_SECONDS if self.silent and len(self._nc.servers) > 1 else ANSWER_SECONDS

    async def _batch(self, group: list[PendingCommit]) -> list[PublishOutcome]:
        batch = {"Nats-Batch-Id": secrets.token_hex(8)}
        for number, pending in enumerate(group[:-1], 1):
            headers = pending.headers | batch
            headers["Nats-Batch-Sequence"] = str(number)
            await self._publisher.send(pending.subject, pending.body, headers)
        last = group[-1]
        headers = last.headers | batch | {"Nats-Batch-Sequence": str(len(group)), "Nats-Batch-Commit": "1"}
        answer = await self._publisher.publish(last.subject, last.body, headers)
        (outcome,) = await self._publisher.outcomes([answer], self._answer_seconds())
        match outcome:
            case Ack(sequence, count) if count == len(group):
                return [Ack(sequence - count + number) for number in range(1, count + 1)]
            case Ack(_, count):
                return [Unanswered(f"the batch of {len(group)} was acknowledged as {count}")] * len(group)
            case Refused():
                log.debug(
                    "a batch was refused: publishing one by one",
                    action="batch_refused",
                    why=outcome.why,
                    commits=len(group),
                )
                return await self._one_by_one(group)
            case Unanswered():
                return [outcome] * len(group)
