"""The scheduler process: it shares the partitions with others of its kind, and runs a worker for each that it owns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from functools import partial
from typing import Protocol

import structlog

from runstream.database.database import Database
from runstream.errors import chain_lines, sentence_of
from runstream.jetstream.messaging import Notices, Questions
from runstream.leases import LeaseBucket
from runstream.lifecycle import Component
from runstream.log.port import Log
from runstream.projections.ownership import PartitionOwnership
from runstream.projections.store import FencedError
from runstream.scheduler.board import ExecutorBoard
from runstream.scheduler.capacity import Capacity
from runstream.scheduler.deadlines import Deadlines
from runstream.scheduler.exchange import Exchange
from runstream.scheduler.log_clock import LogClock
from runstream.scheduler.retries import retry_requests
from runstream.scheduler.turns import Turns
from runstream.scheduler.worker import PartitionWorker, Surroundings
from runstream.telemetry.metrics import OWNED_PARTITIONS
from runstream.timers import Timers

logger = structlog.get_logger(__name__)

RESTART_SECONDS = 0.5
"""Before a worker that failed is started again."""
DRAIN_SECONDS = 2.0
"""How long a worker may take, when the process stops, to bring to the log and to the database what it has begun."""


class Fellows(Protocol):
    """The schedulers of the deployment (`runstream.maintenance.Instance`)."""

    @property
    def id(self) -> str:
        """Which of them this process is."""
        ...

    def fellows(self, part: str) -> AsyncIterator[Collection[str]]:
        """The ids of all that work, whenever they change, from the moment when this one is among them."""
        ...

    def can(self, part: str, able: bool) -> None:
        """Tell the others whether this process's part reaches what it needs."""
        ...


class Scheduler(Component):
    """Schedules the runs of the partitions that it owns."""

    name = "scheduler"

    def __init__(
        self,
        log: Log,
        database: Database,
        executors: LeaseBucket,
        fellows: Fellows,
        timers: Timers,
        questions: Questions,
        notices: Notices,
        *,
        grace: float,
    ) -> None:
        """`executors` are the leases of executors; `grace` is in seconds."""
        super().__init__()
        self._log = log
        self._database = database
        self._fellows = fellows
        self._workers: dict[int, tuple[PartitionWorker, asyncio.Task[None]]] = {}
        self._left: dict[int, int] = {}
        """Where the workers were that were drained when this process stopped."""
        clock = LogClock()
        board = ExecutorBoard(executors, grace, on_offer=self._offered, on_gone=self._executor_gone, on_time=clock.read)
        self._turns = Turns(Capacity(board.offers))
        self._exchange = Exchange(self._turns, notices, log.subjects.notices(), fellows.id)
        deadlines = Deadlines(timers, log, clock, board.skew)
        self._around = Surroundings(log, database, self._turns, board, deadlines, questions, clock)

    async def run(self) -> None:
        """Serve until `stopping` is set, then give the partitions back."""
        async with asyncio.TaskGroup() as tasks:
            following = [
                tasks.create_task(self._around.board.run()),
                tasks.create_task(self._around.deadlines.run()),
                tasks.create_task(self._exchange.run()),
                tasks.create_task(self._retry_on_request()),
            ]
            ownership = PartitionOwnership(
                self._database,
                namespace=self._log.subjects.namespace,
                service=self._log.subjects.service,
                partitions=self._log.partitions,
                instance=self._fellows.id,
                live=self._living(),
                on_acquired=self._acquired,
                on_lost=self._lost,
                on_reach=partial(self._fellows.can, self.name),
            )
            await ownership.start()
            self.started.set()
            try:
                await self.stopping.wait()
            finally:
                await ownership.stop()
            for task in following:
                task.cancel()

    def positions(self) -> dict[int, int]:
        """How far each partition of this process was taken in."""
        working = {partition: worker.position for partition, (worker, _) in self._workers.items()}
        return self._left | {partition: position for partition, position in working.items() if position is not None}

    async def _living(self) -> AsyncIterator[Collection[str]]:
        async for processes in self._fellows.fellows(self.name):
            self._exchange.living(processes)
            yield processes

    async def _acquired(self, partition: int) -> None:
        worker = PartitionWorker(partition, self._around)
        task = asyncio.create_task(self._keep_running(worker), name=f"partition {partition}")
        self._workers[partition] = (worker, task)
        OWNED_PARTITIONS.set(len(self._workers))

    async def _lost(self, partition: int) -> None:
        worker, task = self._workers.pop(partition)
        if self.stopping.is_set():
            await self._drain(worker)
            if (position := worker.position) is not None:
                self._left[partition] = position
        task.cancel()
        await asyncio.wait({task})
        OWNED_PARTITIONS.set(len(self._workers))

    async def _drain(self, worker: PartitionWorker) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await worker.drain()
        except TimeoutError:
            # Nothing is lost: whoever has the partition next reads on from the checkpoint and decides the same.
            logger.warning("A partition was left undrained", action="partition_undrained", partition=worker.partition)

    async def _keep_running(self, worker: PartitionWorker) -> None:
        subject = self._log.subjects.progress(worker.partition)
        async with self._around.questions.answering(subject, worker.progress.answer):
            await self._run_again_and_again(worker)

    async def _run_again_and_again(self, worker: PartitionWorker) -> None:
        while True:
            try:
                await worker.run()
            except* FencedError as group:
                worker.progress.failed(sentence_of(group))
                logger.warning("Another scheduler was here", action="partition_fenced", partition=worker.partition)
            except* Exception as group:  # noqa: BLE001  whatever it was, the partition is worked on again
                worker.progress.failed(sentence_of(group))
                logger.warning(
                    "A partition's worker is started again",
                    action="partition_restarted",
                    partition=worker.partition,
                    errors=chain_lines(group),
                )
            await asyncio.sleep(RESTART_SECONDS)

    async def _retry_on_request(self) -> None:
        async for partition in retry_requests(self._database):
            if partition in self._workers:
                self._workers[partition][0].retry_parked()

    def _offered(self, executor_id: str) -> None:
        self._turns.offered(executor_id)

    def _executor_gone(self, executor_id: str, reason: str) -> None:
        for worker, _ in self._workers.values():
            worker.executor_gone(executor_id, reason)
