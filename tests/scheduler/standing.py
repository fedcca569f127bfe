"""A scheduler on real servers, and an executor that does nothing but report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import orjson
from msgspec.structs import asdict
from nats.aio.client import Client

from runstream.codec import decode
from runstream.commits import Head, StoredCommit
from runstream.database import Database
from runstream.database.freshness import Freshness
from runstream.domain import executor_task as executor_tasks
from runstream.domain.executor import Offer
from runstream.domain.executor_task import ExecutorTask, decide_start
from runstream.events.executor_task import (
    ExecutorTaskAssigned,
    ExecutorTaskEvent,
    ExecutorTaskFinished,
    ExecutorTaskLogStored,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
)
from runstream.events.run_config import RunConfig, RunConfigStored
from runstream.ids import new_id
from runstream.jetstream.messaging import Notices, Questions
from runstream.leases import Lease, LeaseBucket, open_leases
from runstream.lifecycle import Component
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.projections.fold import PartitionFold
from runstream.scheduler.scheduler import Scheduler
from runstream.subjects import Address, group_root, partition_of
from runstream.timers import open_timers
from tests.domain.world import offer
from tests.factories import run_created
from tests.migrated import make_tables
from tests.servers import Servers


class Members:
    """A scheduler among those of these ids; alone when none are given."""

    def __init__(self, own: str = "", everybody: Collection[str] = ()) -> None:
        self.id = own or new_id()
        self._ids = {self.id, *everybody}

    async def members(self, part: str) -> AsyncIterator[Collection[str]]:
        yield self._ids
        await asyncio.Event().wait()

    def can(self, part: str, able: bool) -> None:
        """Accept the announcement; there are no peers to pass it to."""


Outcome = Callable[[ExecutorTask], ExecutorTaskPhase]


def succeed(_task: ExecutorTask) -> ExecutorTaskPhase:
    return ExecutorTaskPhase.SUCCESS


@dataclass
class Standing:
    """What a test of the scheduler has around it."""

    log: JetStreamLog
    database: Database
    executors: LeaseBucket
    nats: Client
    freshness: Freshness
    runs: dict[str, int] = field(default_factory=dict)
    """The partition of each run."""
    configs: dict[str, str] = field(default_factory=dict)
    """The run config of each run."""

    async def scheduler(self, members: Members | None = None, *, grace: float = 2) -> Scheduler:
        return Scheduler(
            self.log,
            self.database,
            self.executors,
            members or Members(),
            await open_timers(self.nats, self.log.subjects.namespace),
            Questions(self.nats),
            Notices(self.nats),
            grace=grace,
        )

    async def create(self, content: RunConfig, group: str = "/project/p/branch/main") -> str:
        partition = partition_of(group_root(group), self.log.partitions)
        key, run_id = new_id(), new_id()
        now = datetime.now(UTC)
        config = Head().next_commit(
            Address(partition, "runconfig", key), (RunConfigStored(content),), time=now, actor="user"
        )
        await self.log.append(config)
        event = run_created(content.name, group, key)
        await self.log.append(Head().next_commit(Address(partition, "run", run_id), (event,), time=now, actor="user"))
        self.runs[run_id] = partition
        self.configs[run_id] = key
        return run_id

    async def folded_until(self, partition: int, done: Callable[[PartitionFold], bool]) -> PartitionFold:
        """The partition's state as soon as it is as asked for, projected too."""
        fold = PartitionFold(partition, self.log.epoch)
        async with self.log.read(partition, 0) as reader:
            while not done(fold):
                for message in await reader.next_batch():
                    fold.apply(decode(message))
        return fold

    async def ended(self, *run_ids: str) -> dict[str, PartitionFold]:
        """The state of each run's partition once all these runs are archived."""
        folds = {}
        for partition in {self.runs[run_id] for run_id in run_ids}:
            wanted = [run_id for run_id in run_ids if self.runs[run_id] == partition]
            folds[partition] = await self.folded_until(
                partition,
                lambda fold, wanted=wanted: all(r in fold.runs and fold.runs[r].state.archived for r in wanted),  # type: ignore[misc]
            )
        return {run_id: folds[self.runs[run_id]] for run_id in run_ids}


class FakeExecutor:
    """Takes what is assigned to it, and reports each task's end at once (or never, when the outcome is running)."""

    def __init__(self, standing: Standing, executor_id: str, *, limit: int = 0, outcome: Outcome = succeed) -> None:
        self.offer: Offer = offer(executor_id, limit)
        self._standing = standing
        self._outcome = outcome
        self.setup_only = False
        """Report the end of the setup of tasks that go on running."""
        self.idle = False
        """Start nothing."""
        self.taken: list[str] = []

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[Lease]:
        lease = self._standing.executors.lease(self.offer.executor_id, lambda: orjson.dumps(asdict(self.offer)))
        async with asyncio.TaskGroup() as tasks:
            work = [tasks.create_task(lease.run())]
            work += [tasks.create_task(self._follow(p)) for p in range(self._standing.log.partitions)]
            await lease.held.wait()
            yield lease
            for task in work:
                task.cancel()

    async def _follow(self, partition: int) -> None:
        log = self._standing.log
        filters = [log.subjects.tasks_of(partition, self.offer.executor_id)]
        async with log.read(partition, 0, filters=filters) as reader:
            while True:
                for message in await reader.next_batch():
                    await self._take(decode(message))

    async def _take(self, stored: StoredCommit) -> None:
        (event, *_) = stored.commit.events
        if not isinstance(event, ExecutorTaskAssigned):
            return
        task = executor_tasks.assigned(stored.commit.address.id, event)
        self.taken.append(task.id)
        if self.idle:
            return
        head = await self._report(stored, Head(1, stored.position.sequence), decide_start(task, datetime.now(UTC)))
        phase = self._outcome(task)
        if phase is not ExecutorTaskPhase.RUNNING:
            await self._report(stored, head, self.end(task, phase))
        elif self.setup_only:
            done = ExecutorTaskSetupFinished(datetime.now(UTC), ExecutorTaskPhase.SUCCESS)
            await self._report(stored, head, (done,))

    async def _report(self, stored: StoredCommit, head: Head, events: tuple[ExecutorTaskEvent, ...]) -> Head:
        commit = head.next_commit(
            stored.commit.address, events, time=datetime.now(UTC), actor="executor", cause=stored.commit.id
        )
        position = await self._standing.log.append(commit)
        return Head(commit.version, position.sequence)

    @staticmethod
    def end(task: ExecutorTask, phase: ExecutorTaskPhase) -> tuple[ExecutorTaskEvent, ...]:
        at = datetime.now(UTC)
        events: list[ExecutorTaskEvent] = [ExecutorTaskSetupFinished(at, ExecutorTaskPhase.SUCCESS)]
        for index in range(len(task.steps)):
            events += [ExecutorTaskStepStarted(index, at), ExecutorTaskStepFinished(index, at, phase, 0)]
            events.append(ExecutorTaskLogStored(index))
        return (*events, ExecutorTaskLogStored(None), ExecutorTaskFinished(at, phase, ""))


@asynccontextmanager
async def standing(servers: Servers, *, lease_seconds: int = 15) -> AsyncIterator[Standing]:
    """Servers with an empty log and empty tables; a short lease is for a test in which an executor is lost."""
    await make_tables(servers.database_url, servers.schema)
    async with AsyncExitStack() as stack:
        client = Client()
        await client.connect(servers.nats_url)
        stack.push_async_callback(client.close)
        log = await open_log(client, servers.namespace, create=True, partitions=2)
        stack.push_async_callback(log.close)
        database = Database(servers.database_url, servers.schema)
        stack.push_async_callback(database.close)
        freshness = Freshness(database)
        executors = await open_leases(client, f"{servers.namespace}_executors", seconds=lease_seconds)
        yield Standing(log, database, executors, client, freshness)


C = TypeVar("C", bound=Component)


@asynccontextmanager
async def running(component: C) -> AsyncIterator[C]:
    await component.start()
    try:
        yield component
    finally:
        await component.stop()
