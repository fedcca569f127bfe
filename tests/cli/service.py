"""A service for the command line: a gateway in a thread over a log in memory, with simulated workers."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runstream import codec
from runstream.commits import StoredCommit
from runstream.events.event import DomainEvent
from runstream.events.executor_task import (
    ExecutorTaskFinished,
    ExecutorTaskLogStored,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStarted,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
)
from runstream.events.run import (
    RunArchived,
    RunCreated,
    RunFinished,
    RunNumbered,
    RunResultSet,
    RunStarted,
    RunStopRequested,
    RunTaskApprovalRequested,
    RunTaskApproved,
    RunTaskRetried,
    RunTasksSkipped,
)
from runstream.ids import executor_task_id, run_task_id
from runstream.log.runs import find_run
from runstream.run_states import RunResult
from runstream.subjects import Address
from tests.factories import task_assigned
from tests.gateway.folding import FoldedLog
from tests.gateway.world import BEGUN, World


@dataclass
class Service:
    """A running service."""

    url: str
    world: World


@contextmanager
def service() -> Iterator[Service]:
    """A service whose runs end at once: a task named `bad…` fails, one named `slow…` waits for a stop."""
    ready: list[Service] = []
    started, loops = threading.Event(), list[asyncio.AbstractEventLoop]()
    stop = asyncio.Event()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        world = World.make()
        world.reads = FoldedLog(world.log)  # type: ignore[assignment]
        world.step_logs.chunks = [b"first line\nsec", b"ond line\n"]
        object.__setattr__(world.context, "reads", world.reads)
        async with world.served() as url, asyncio.TaskGroup() as group:
            players = [group.create_task(_play(world, partition)) for partition in range(world.log.partitions)]
            ready.append(Service(url, world))
            started.set()
            await stop.wait()
            for player in players:
                player.cancel()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(10)
    try:
        yield ready[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)


async def _play(world: World, partition: int) -> None:
    """Simulate the scheduler and the executor."""
    numbers = itertools.count(1)
    async with world.log.read(partition, 0) as reader:
        while True:
            for message in await reader.next_batch():
                await _react(world, codec.decode(message), numbers)


async def _react(world: World, stored: StoredCommit, numbers: Iterator[int]) -> None:
    address = stored.commit.address
    for event in stored.commit.events:
        match event:
            case RunCreated(setup_errors=()):
                await world.append(address, RunNumbered(next(numbers), stored.position.sequence), RunStarted())
                await _run_tasks(world, address)
            case RunStopRequested():
                await world.append(address, RunResultSet(RunResult.STOPPED), RunFinished(), RunArchived())
            case RunTaskApproved():
                await world.append(address, RunResultSet(RunResult.SUCCESS), RunFinished(), RunArchived())


async def _run_tasks(world: World, address: Address) -> None:
    found = await find_run(world.log, address)
    failed = False
    for name, task in found.config.tasks.items():
        if found.run.tasks[name].kept:
            continue
        if name.startswith("slow"):
            return
        if task.needs_approval:
            await world.append(address, RunTaskApprovalRequested(name))
            return
        if name.startswith("skip"):
            await world.append(address, RunTasksSkipped((name,)))
            continue
        if name.startswith("flaky"):
            await _run_task(world, address, found.run.run_config, name, ExecutorTaskPhase.FAILED)
            await world.append(address, RunTaskRetried(name, 2, "failure", BEGUN))
        phase = ExecutorTaskPhase.FAILED if name.startswith("bad") else ExecutorTaskPhase.SUCCESS
        failed = failed or phase is ExecutorTaskPhase.FAILED
        attempt = 2 if name.startswith("flaky") else 1
        await _run_task(world, address, found.run.run_config, name, phase, attempt)
    result = RunResult.FAILED if failed else RunResult.SUCCESS
    await world.append(address, RunResultSet(result), RunFinished(), RunArchived())


async def _run_task(
    world: World, run: Address, config: str, name: str, phase: ExecutorTaskPhase, attempt: int = 1
) -> None:
    run_task = run_task_id(run.id, name)
    task = Address(run.partition, "task", executor_task_id(run.id, run_task, attempt), "e1")
    success = ExecutorTaskPhase.SUCCESS
    status = 0 if phase is success else 3
    happened: list[DomainEvent] = [
        task_assigned(
            run_id=run.id,
            run_task_id=run_task,
            task=name,
            run_config=config,
            group="/project/web/branch/main",
            attempt=attempt,
        ),
        ExecutorTaskStarted(BEGUN),
        ExecutorTaskSetupFinished(BEGUN, success),
        ExecutorTaskStepStarted(0, BEGUN),
        ExecutorTaskStepFinished(0, BEGUN, phase, status),
        ExecutorTaskLogStored(None),
        ExecutorTaskLogStored(0),
        ExecutorTaskFinished(BEGUN, phase, ""),
    ]
    for event in happened:
        await world.append(task, event)
