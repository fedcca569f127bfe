"""A drained executor says so in its lease at once, keeps its tasks, and stays drained over a restart."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import orjson

from runstream.commits import Head
from runstream.events.event import DomainEvent
from runstream.events.executor import ExecutorDrained, ExecutorUndrained
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.subjects import Address, partition_of
from tests.executor.rig import Rig, rig, run_step, task_of
from tests.executor.test_life import appears
from tests.log.memory import MemoryLog


async def say(it: Rig, event: DomainEvent) -> None:
    address = Address(partition_of(it.executor_id, it.log.partitions), "executor", it.executor_id)
    last = await it.log.last(address)
    assert last is not None
    head = Head(last.commit.version, last.position.sequence)
    touched = it.leases.given.touching
    await it.log.append(head.next_commit(address, (event,), time=datetime.now(UTC), actor="user:ada"))
    await touched.wait()


def drains(it: Rig) -> bool:
    said: bool = orjson.loads(it.leases.value())["draining"]
    return said


async def test_a_drained_executor_keeps_its_tasks_and_says_so(tmp_path: Path) -> None:
    log = MemoryLog()
    async with rig(tmp_path, log=log) as it:
        assert not drains(it)
        task = await it.assign(task_of("task", run_step("mkfifo ~/gate; echo > ~/ready; cat ~/gate")))
        await appears(it.task_folder(task) / "home" / "ready")
        it.leases.given.touching.clear()
        await say(it, ExecutorDrained())
        assert drains(it)
        (it.task_folder(task) / "home" / "gate").write_text("go")
        assert (await task.settled()).phase is ExecutorTaskPhase.SUCCESS
    async with rig(tmp_path, log=log) as it:
        assert drains(it)
        it.leases.given.touching.clear()
        await say(it, ExecutorUndrained())
        assert not drains(it)
