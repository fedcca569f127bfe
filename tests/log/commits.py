"""Commits for tests: the smallest that say something."""

from __future__ import annotations

from datetime import UTC, datetime

from runstream.commits import Head, NewCommit
from runstream.events.event import DomainEvent
from runstream.events.executor_task import ExecutorTaskStopRequested
from runstream.events.run import RunNumbered, RunStarted
from runstream.ids import new_id
from runstream.subjects import Address
from tests.factories import run_created, task_assigned

NOW = datetime(2026, 11, 23, 2, 16, 40, tzinfo=UTC)


def run_address(partition: int = 0) -> Address:
    return Address(partition, "run", new_id())


def task_address(executor_id: str, task_id: str, partition: int = 0) -> Address:
    return Address(partition, "task", task_id, executor_id)


def created(address: Address, *, cause: str = "", name: str = "build") -> NewCommit:
    event = run_created(name, "/project/web", "hash")
    return Head().next_commit(address, [event], time=NOW, actor="user:ada", cause=cause)


def after(earlier: NewCommit, sequence: int, event: DomainEvent | None = None, *, cause: str = "") -> NewCommit:
    head = Head(earlier.version, sequence)
    return head.next_commit(earlier.address, [event or RunStarted()], time=NOW, actor="scheduler", cause=cause)


def numbered(earlier: NewCommit, sequence: int, number: int) -> NewCommit:
    return after(earlier, sequence, RunNumbered(number, number))


def assigned(address: Address) -> NewCommit:
    event = task_assigned(address.executor_id, run_task_id="task", run_config="hash", group="/project/web", steps=2)
    return Head().next_commit(address, [event], time=NOW, actor="scheduler")


def stop_requested(earlier: NewCommit, sequence: int) -> NewCommit:
    return after(earlier, sequence, ExecutorTaskStopRequested())
