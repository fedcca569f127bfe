"""The scheduler process: it shares the partitions with others of its kind, and runs a worker for each that it owns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection

import structlog

from runstream.database.database import Database
from runstream.errors import InternalError, chain_lines
from runstream.ids import new_id
from runstream.leases import LeaseBoard
from runstream.lifecycle import Component
from runstream.log.port import Log
from runstream.projections.ownership import PartitionOwnership
from runstream.projections.store import FencedError
from runstream.scheduler.board import ExecutorBoard
from runstream.scheduler.capacity import Capacity
from runstream.scheduler.deadlines import Deadlines
from runstream.scheduler.retries import retry_requests
from runstream.scheduler.worker import PartitionWorker, Surroundings, utc_now
from runstream.telemetry.metrics import OWNED_PARTITIONS
from runstream.timers import Timers

logger = structlog.get_logger(__name__)

RESTART_SECONDS = 0.5
"""Before a worker that failed is started again."""


class Scheduler(Component):
    """Schedules the runs of the partitions that it owns."""

    name = "scheduler"

    def __init__(
        self,
        log: Log,
        database: Database,
        executors: LeaseBoard,
        instances: LeaseBoard,
        timers: Timers,
        *,
        grace: float,
    ) -> None:
        """`executors` and `instances` are the leases of executors and of scheduler processes; `grace` in seconds."""
        super().__init__()
        self.instance = new_id()
        self._log = log
        self._database = database
        self._instances = instances
        self._workers: dict[int, tuple[PartitionWorker, asyncio.Task[None]]] = {}
        capacity = Capacity()
        board = ExecutorBoard(executors, grace, on_room=self._room_made, on_gone=self._executor_gone)
        capacity.offers = board.offers
        deadlines = Deadlines(timers, log, utc_now)
        self._around = Surroundings(log, database, capacity, board, deadlines)

    async def run(self) -> None:
        """Serve until `stopping` is set, then give the partitions back."""
        async with asyncio.TaskGroup() as tasks:
            following = [
                tasks.create_task(self._around.board.run()),
                tasks.create_task(self._around.deadlines.run()),
                tasks.create_task(self._retry_on_request()),
                tasks.create_task(self._stay_known()),
            ]
            ownership = PartitionOwnership(
                self._database,
                namespace=self._log.subjects.namespace,
                service=self._log.subjects.service,
                partitions=self._log.partitions,
                instance=self.instance,
                live=self._living(),
                on_acquired=self._acquired,
                on_lost=self._lost,
            )
            await ownership.start()
            self.started.set()
            try:
                await self.stopping.wait()
            finally:
                await ownership.stop()
            for task in following:
                task.cancel()

    async def _stay_known(self) -> None:
        """Hold the lease that tells other schedulers of this one."""
        while True:
            try:
                await self._instances.lease(self.instance, lambda: b"scheduler").run()
            except InternalError as error:
                logger.warning("This scheduler is not known to others", action="instance_lease_lost", error=str(error))
            await asyncio.sleep(RESTART_SECONDS)

    async def _living(self) -> AsyncIterator[Collection[str]]:
        """The living schedulers, from the moment when this one is among them."""
        known = False
        async with self._instances.watching() as watch:
            living = set(watch.held)
            while True:
                known = known or self.instance in living
                if known:
                    yield frozenset(living)
                before = set(living)
                while living == before:
                    change = await anext(watch)
                    (living.add if change.what == "held" else living.discard)(change.key)

    async def _acquired(self, partition: int) -> None:
        worker = PartitionWorker(partition, self._around)
        task = asyncio.create_task(self._keep_running(worker), name=f"partition {partition}")
        self._workers[partition] = (worker, task)
        OWNED_PARTITIONS.set(len(self._workers))

    async def _lost(self, partition: int) -> None:
        _, task = self._workers.pop(partition)
        task.cancel()
        await asyncio.wait({task})
        OWNED_PARTITIONS.set(len(self._workers))

    async def _keep_running(self, worker: PartitionWorker) -> None:
        while True:
            try:
                await worker.run()
            except* FencedError:
                logger.warning("Another scheduler was here", action="partition_fenced", partition=worker.partition)
            except* Exception as group:  # noqa: BLE001  whatever it was, the partition is worked on again
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

    def _room_made(self) -> None:
        for worker, _ in self._workers.values():
            worker.room_made()

    def _executor_gone(self, executor_id: str, reason: str) -> None:
        for worker, _ in self._workers.values():
            worker.executor_gone(executor_id, reason)
