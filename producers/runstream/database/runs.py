"""Queries of the projection about runs, tasks and executors; each one is a function of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, RowMapping, and_, func, not_, or_, select

from runstream import tables
from runstream.commits import Head, Position, StoredCommit
from runstream.database.rows import any_of, executor_of, executor_task_of, run_config_of, run_of
from runstream.database.transaction import Transaction
from runstream.domain.executor import ExecutorState, RegisteredExecutor
from runstream.domain.executor_task import OPEN_PHASES, ExecutorTask
from runstream.domain.run import RunState
from runstream.errors import NotExistError
from runstream.events.run_config import RunConfig
from runstream.log.port import RawMessage
from runstream.subjects import group_root
from runstream.tables import ExecutorRow, ExecutorTaskRow, RunRow, RunTaskRow


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run with its tasks, and their executor tasks."""

    run: RunState
    head: Head
    partition: int
    executor_tasks: dict[str, ExecutorTask]
    """By id, those of all attempts; their steps are the steps of the task."""


@dataclass(frozen=True, slots=True)
class ReadRun:
    """A run of the projection with its run config."""

    record: RunRecord
    config: RunConfig


@dataclass(frozen=True, slots=True)
class RunMoment:
    """A run as one message of its history left it."""

    number: int
    """The number of the message in the history of the run, from 1."""
    raw: RawMessage
    commit: StoredCommit | None
    """None for a commit that is parked."""
    reason: str
    """Why the commit is parked; empty if it is not."""
    task: str
    """The name of the task whose executor task the commit is of; empty for the commits of others."""
    read: ReadRun


@dataclass(frozen=True, slots=True)
class ExecutorRecord:
    """An executor with the number of its open tasks."""

    executor: RegisteredExecutor
    head: Head
    partition: int
    open_tasks: int
    last_task: datetime | None = None
    """The latest start or end of a task in the rows."""


async def get_run(transaction: Transaction, run_id: str) -> RunRecord:
    """Return the run. Raises NotExistError."""
    row = await transaction.first(select(tables.runs).where(tables.runs.c.id == run_id))
    if row is None:
        raise _no_run(run_id)
    return await _with_tasks(transaction, RunRow(**row))


async def get_run_by_counter(transaction: Transaction, group: str, counter: int) -> RunRecord:
    """Return the run with this number in the group's root, if it is in the group or below.

    Raises NotExistError, and BadRequestError for an invalid group.
    """
    runs = tables.runs.c
    found = select(tables.runs).where(
        runs.counter_group == group_root(group), runs.counter == counter, _within(group, runs.group)
    )  # runs_by_counter
    row = await transaction.first(found)
    if row is None:
        raise _no_run(f"{group} #{counter}")
    return await _with_tasks(transaction, RunRow(**row))


async def get_deleted_run(transaction: Transaction, group: str, counter: int) -> str | None:
    """Return the id of the deleted run with this number, if it was in the group or below; None without one."""
    deleted = tables.deleted_runs.c
    found = select(deleted.run_id).where(
        deleted.counter_group == group_root(group), deleted.counter == counter, _within(group, deleted.group)
    )  # deleted_runs_by_counter
    row = await transaction.first(found)
    return None if row is None else str(row["run_id"])


def _no_run(which: str) -> NotExistError:
    return NotExistError(f"run {which} doesn't exist", code="runDoesNotExist", details={"run": which})


async def _with_tasks(transaction: Transaction, run: RunRow) -> RunRecord:
    tasks = select(tables.run_tasks).where(tables.run_tasks.c.run_id == run.id).order_by(tables.run_tasks.c.name)
    task_rows = map(RunTaskRow._make, await transaction.tuples(tasks))
    state = run_of(run, task_rows)
    ids = {key for task in state.tasks.values() for key in (task.executor_task_id, *task.executions) if key}
    executor_tasks = select(tables.executor_tasks).where(tables.executor_tasks.c.id == any_of(ids))
    executed = map(executor_task_of, map(ExecutorTaskRow._make, await transaction.tuples(executor_tasks)))
    return RunRecord(state, run.head, run.partition, {task.id: task for task in executed})


def _within(group: str, column: ColumnElement[str]) -> ColumnElement[bool]:
    """Match the group itself or below it, as a range of the index: `0` is the character after `/`."""
    group = group.rstrip("/")
    return or_(column == group, and_(column >= f"{group}/", column < f"{group}0"))


async def get_run_config(transaction: Transaction, partition: int, content_hash: str) -> RunConfig:
    """Return a run config, from the partition of its runs. Raises NotExistError."""
    configs = tables.run_configs.c
    found = select(configs.content).where(configs.partition == partition, configs.hash == content_hash)
    row = await transaction.first(found)
    if row is None:
        raise NotExistError(
            f"run config {content_hash} doesn't exist", code="runConfigDoesNotExist", details={"hash": content_hash}
        )
    return run_config_of(row["content"])


async def list_executors(transaction: Transaction) -> tuple[ExecutorRecord, ...]:
    """List all executors that are not deleted, by id."""
    executors = tables.executors.c
    existing = select(tables.executors).where(executors.state != ExecutorState.DELETED.value).order_by(executors.id)
    return await _with_open_tasks(transaction, await transaction.rows(existing))


async def _with_open_tasks(transaction: Transaction, rows: Sequence[RowMapping]) -> tuple[ExecutorRecord, ...]:
    """Count open tasks among active runs only (runs_active, executor_tasks_by_run)."""
    tasks, runs = tables.executor_tasks.c, tables.runs.c
    counting = (
        select(tasks.executor_id, func.count().label("open"))
        .join_from(tables.runs, tables.executor_tasks, tasks.run_id == runs.id)
        .where(not_(runs.archived), tasks.phase.in_([phase.value for phase in OPEN_PHASES]))
        .group_by(tasks.executor_id)
    )
    counts = {row["executor_id"]: int(row["open"]) for row in await transaction.rows(counting)}
    executors = [ExecutorRow(**row) for row in rows]
    latest = func.max(func.coalesce(tasks.end_time, tasks.start_time)).label("latest")
    away = [row.id for row in executors if row.state != ExecutorState.REGISTERED.value]
    ended = select(tasks.executor_id, latest).where(tasks.executor_id.in_(away)).group_by(tasks.executor_id)
    last = {row["executor_id"]: row["latest"] for row in await transaction.rows(ended)} if away else {}
    return tuple(
        ExecutorRecord(executor_of(row), row.head, row.partition, counts.get(row.id, 0), last.get(row.id))
        for row in executors
    )


async def get_positions(transaction: Transaction, projection: str = tables.PROJECTION) -> dict[int, Position]:
    """Return the projected position of each partition."""
    checkpoints = tables.checkpoints.c
    rows = await transaction.rows(
        select(tables.checkpoints).where(checkpoints.projection == projection).order_by(checkpoints.partition)
    )
    return {row["partition"]: Position(row["epoch"], row["partition"], row["sequence"]) for row in rows}
