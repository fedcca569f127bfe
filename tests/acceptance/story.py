"""What the log itself says happened: read beside the deployment, by nothing but the log's own reader.

async with reading(deployment.nats.url) as story:
    await story.until(lambda: story.ended >= accepted)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import cast

from runstream.codec import decode
from runstream.commits import Position, StoredCommit
from runstream.domain.executor_task import ExecutorTask, assigned, evolve
from runstream.events.executor import ExecutorLost
from runstream.events.executor_task import ExecutorTaskAssigned, ExecutorTaskEvent, ExecutorTaskStarted
from runstream.events.run import RunArchived, RunCancelled, RunCreated, RunFinished, RunResultSet, RunStarted
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.log.port import RawMessage
from runstream.run_states import RunResult


class Story:
    """The commits so far, folded into the facts that tests check."""

    def __init__(self) -> None:
        self.commits: dict[Position, StoredCommit] = {}
        self.groups: dict[str, str] = {}
        """By run."""
        self.running: dict[str, str] = {}
        """The running run of each group."""
        self.overlaps: list[str] = []
        """Every time a run started while another one of its group ran."""
        self.results: dict[str, RunResult] = {}
        self.ended: set[str] = set()
        self.archived: set[str] = set()
        self.tasks: dict[str, ExecutorTask] = {}
        self.executions: Counter[tuple[str, str]] = Counter()
        """How often each task (run, name) was assigned to an executor."""
        self.starts: Counter[str] = Counter()
        """How often each executor task was started."""
        self.lost_executors: set[str] = set()
        self._news = asyncio.Event()

    def take(self, message: RawMessage) -> None:
        """The next message of a partition."""
        stored = decode(message)
        self.commits[stored.position] = stored
        address = stored.commit.address
        for event in stored.commit.events:
            if address.kind == "run":
                self._of_run(address.id, event)
            elif address.kind == "task":
                self._of_task(address.id, cast("ExecutorTaskEvent", event))
            elif isinstance(event, ExecutorLost):
                self.lost_executors.add(address.id)
        self._news.set()

    def _of_run(self, run: str, event: object) -> None:
        match event:
            case RunCreated(group=group):
                self.groups[run] = group
            case RunStarted():
                if self.groups[run] in self.running:
                    self.overlaps.append(f"{run} began while {self.running[self.groups[run]]} ran")
                self.running[self.groups[run]] = run
            case RunResultSet(result):
                self.results[run] = result
            case RunFinished():
                self.ended.add(run)
                del self.running[self.groups[run]]
            case RunCancelled():
                self.ended.add(run)
            case RunArchived():
                self.archived.add(run)
            case _:
                pass

    def _of_task(self, task: str, event: ExecutorTaskEvent) -> None:
        if isinstance(event, ExecutorTaskAssigned):
            self.tasks[task] = assigned(task, event)
            self.executions[event.run_id, event.task] += 1
            return
        self.starts[task] += isinstance(event, ExecutorTaskStarted)
        self.tasks[task] = evolve(self.tasks[task], event)

    async def until(self, holds: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait until a condition holds; it is checked after each new message."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"it has not come about: {self}") from None

    async def all_over(self, runs: set[str], seconds: float = 120.0) -> None:
        """Wait until these runs have ended, and everything of them is stored."""
        await self.until(lambda: runs <= self.archived, seconds)

    def tasks_of(self, run: str) -> dict[str, ExecutorTask]:
        """The executor tasks of a run by the names of its tasks."""
        return {task.task: task for task in self.tasks.values() if task.run_id == run}

    def __str__(self) -> str:
        open_tasks = [f"{task.id} {task.phase}" for task in self.tasks.values() if task.open]
        return (
            f"{len(self.commits)} commits, {len(self.groups)} runs, {len(self.ended)} ended, "
            f"{len(self.archived)} archived; running {self.running}; open tasks {open_tasks}"
        )


@contextlib.asynccontextmanager
async def reading(nats_url: str) -> AsyncIterator[Story]:
    """Read the log from its beginning and keep reading, across restarts of NATS."""
    story = Story()
    async with _log(nats_url) as log, asyncio.TaskGroup() as group:
        readers = [group.create_task(_read(log, partition, story)) for partition in range(log.partitions)]
        yield story
        for reader in readers:
            reader.cancel()


async def reread(nats_url: str) -> Story:
    """Read the log again, as it is now."""
    story = Story()
    async with _log(nats_url) as log:
        for partition in range(log.partitions):
            end = await log.end(partition)
            async with log.read(partition, 0) as reader:
                at = 0
                while at < end:
                    for message in await reader.next_batch():
                        story.take(message)
                        at = message.position.sequence
    return story


async def _read(log: JetStreamLog, partition: int, story: Story) -> None:
    async with log.read(partition, 0) as reader:
        while True:
            for message in await reader.next_batch():
                story.take(message)


@contextlib.asynccontextmanager
async def _log(nats_url: str) -> AsyncIterator[JetStreamLog]:
    async with nats_connection(nats_url, "the test's own reader") as client, await open_log(client, "runstream") as log:
        yield log
