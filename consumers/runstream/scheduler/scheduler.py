"""The scheduler of a process: it shares the partitions with its peers, and runs a worker for each that it owns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog

from runstream.database.connection import hung_up
from runstream.database.database import Database
from runstream.database.freshness import retry_channel_of
from runstream.errors import chain_lines, sentence_of
from runstream.jetstream.messaging import Notices, Questions
from runstream.leases import LeaseBucket
from runstream.lifecycle import BackgroundTasks, Component, keep_running, only_asked_cancellation
from runstream.log.port import Log
from runstream.policies import Policies
from runstream.projections.ownership import PartitionOwnership
from runstream.projections.store import FencedError
from runstream.scheduler.capacity import Capacity
from runstream.scheduler.executor_registry import ExecutorRegistry
from runstream.scheduler.fair_queue import FairQueue
from runstream.scheduler.gossip import Gossip
from runstream.scheduler.log_clock import LogClock
from runstream.scheduler.timeouts import TaskTimeouts
from runstream.scheduler.worker import PartitionWorker, WorkerContext
from runstream.telemetry.metrics import OWNED_PARTITIONS
from runstream.timers import Timers

logger = structlog.get_logger(__name__)

RESTART_SECONDS = 0.5
"""Pause before a worker that failed is restarted."""
DRAIN_SECONDS = 2.0
"""Maximum time for a worker, when the process stops, to finish its work in flight."""
MAX_RETRY_REQUESTS = 256
"""Buffered requests to retry parked commits; a partition that is requested twice is retried once more anyway."""


class Membership(Protocol):
    """The instances of the deployment (`runstream.maintenance.Instance`)."""

    @property
    def id(self) -> str:
        """This process's id."""

    def members(self, part: str) -> AsyncIterator[Collection[str]]:
        """Yield the ids of all instances that work, on each change, once this one is among them."""

    def can(self, part: str, able: bool) -> None:
        """Publish whether this process reaches the services that it needs."""


@dataclass(eq=False)
class Scheduler(Component):
    """The scheduler of the partitions that this process owns."""

    name = "scheduler"
    log: Log
    database: Database
    executors: LeaseBucket
    """The leases of executors."""
    membership: Membership
    timers: Timers
    questions: Questions
    notices: Notices
    grace: float
    """The grace period after the end of a lease, in seconds."""
    policies: Policies = field(default_factory=Policies)
    """What is kept of ended runs."""

    def __post_init__(self) -> None:
        super().__init__()
        self._workers: dict[int, tuple[PartitionWorker, asyncio.Task[None]]] = {}
        self._drained: dict[int, int] = {}
        """The positions of the workers that were drained when this process stopped."""
        self._retries: set[int] = set()
        """Partitions whose parked commits are to be retried, and that had no worker here when that was requested."""
        clock = LogClock()
        registry = ExecutorRegistry(
            self.executors,
            self.grace,
            on_offer=lambda executor_id: self._queue.offered(executor_id),
            on_gone=self._executor_gone,
            on_time=clock.read,
        )
        self._queue = FairQueue(Capacity(registry.offers))
        self._gossip = Gossip(self._queue, self.notices, self.log.subjects.notices(), self.membership.id)
        timeouts = TaskTimeouts(self.timers, self.log, clock, registry.skew)
        self._context = WorkerContext(
            self.log, self.database, self._queue, registry, timeouts, self.questions, clock, self.policies
        )

    async def run(self) -> None:
        """Schedule until `stopping` is set, then release the partitions."""
        async with BackgroundTasks() as background:
            background.keep(self._context.executors.run())
            background.keep(self._context.timeouts.run())
            background.keep(self._gossip.run())
            background.keep(keep_running("requests to retry parked commits", self._retry_on_request))
            ownership = PartitionOwnership(
                self.database,
                namespace=self.log.subjects.namespace,
                service=self.log.subjects.service,
                partitions=self.log.partitions,
                instance=self.membership.id,
                live=self._live(),
                on_acquired=self._acquired,
                on_lost=self._lost,
                on_reach=partial(self.membership.can, self.name),
            )
            async with ownership.serving():
                self.started.set()
                await self.stopping.wait()

    def positions(self) -> dict[int, int]:
        """Return the last sequence that was taken in, by partition of this process."""
        working = {partition: worker.position for partition, (worker, _) in self._workers.items()}
        return self._drained | {partition: position for partition, position in working.items() if position is not None}

    async def _live(self) -> AsyncIterator[Collection[str]]:
        async for processes in self.membership.members(self.name):
            self._gossip.members(processes)
            yield processes

    async def _acquired(self, partition: int) -> None:
        worker = PartitionWorker(partition, self._context)
        if partition in self._retries:  # requested during the hand-over, or earlier: once more does no harm
            self._retries.remove(partition)
            worker.retry_parked()
        task = asyncio.create_task(self._restart_forever(worker), name=f"partition {partition}")
        self._workers[partition] = (worker, task)
        OWNED_PARTITIONS.set(len(self._workers))

    async def _lost(self, partition: int) -> None:
        worker, task = self._workers.pop(partition)
        if self.stopping.is_set():
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await worker.drain()
            except TimeoutError:
                # Nothing is lost: the next owner reads on from the checkpoint and makes the same decisions.
                logger.warning("A partition was not drained in time", action="partition_undrained", partition=partition)
            if (position := worker.position) is not None:
                self._drained[partition] = position
        task.cancel()
        await asyncio.wait({task})
        OWNED_PARTITIONS.set(len(self._workers))

    async def _restart_forever(self, worker: PartitionWorker) -> None:
        subject = self.log.subjects.progress(worker.partition)
        while True:
            try:
                with only_asked_cancellation(f"partition {worker.partition}"):
                    async with self._context.questions.answering(subject, worker.progress.answer):
                        await worker.run()
            except* FencedError as group:
                worker.progress.failed(sentence_of(group))
                logger.warning(
                    "Another scheduler has taken the partition over",
                    action="partition_fenced",
                    partition=worker.partition,
                )
            except* Exception as group:  # noqa: BLE001  the next session starts from the checkpoint
                worker.progress.failed(sentence_of(group))
                logger.warning(
                    "A partition's worker is restarted",
                    action="partition_restarted",
                    partition=worker.partition,
                    errors=chain_lines(group),
                )
            await asyncio.sleep(RESTART_SECONDS)

    async def _retry_on_request(self) -> None:
        """Let workers retry parked commits, on notifications of Postgres that `parked retry` sends.

        Returns when the connection is lost.
        """
        requests: asyncio.Queue[int | None] = asyncio.Queue(MAX_RETRY_REQUESTS)

        def offer(request: int | None) -> None:
            if requests.full():
                requests.get_nowait()  # requests beyond the limit repeat others; a lost connection is never dropped
            requests.put_nowait(request)

        async with hung_up(await self.database.connect(watchful=True)) as connection:
            connection.add_termination_listener(lambda _: offer(None))
            channel = retry_channel_of(self.database.schema)
            await connection.add_listener(channel, lambda _c, _p, _n, payload: offer(int(str(payload))))
            for worker, _ in self._workers.values():
                worker.retry_parked()  # requests made before, or since the last connection broke, were not heard
            while (partition := await requests.get()) is not None:
                if partition in self._workers:
                    self._workers[partition][0].retry_parked()
                else:
                    self._retries.add(partition)

    def _executor_gone(self, executor_id: str, reason: str) -> None:
        for worker, _ in self._workers.values():
            worker.executor_gone(executor_id, reason)
