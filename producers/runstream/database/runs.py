"""Queries of the projection about runs, tasks and executors; each one is a function of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ARRAY, ColumnElement, RowMapping, Select, Text, and_, func, literal_column, not_, or_, select

from runstream import tables
from runstream.api import RunSummary
from runstream.commits import Head, Position, StoredCommit
from runstream.database.rows import any_of, executor_of, executor_task_of, run_config_of, run_of
from runstream.database.transaction import Transaction
from runstream.domain.executor import ExecutorState, RegisteredExecutor
from runstream.domain.executor_task import OPEN_PHASES, ExecutorTask
from runstream.domain.run import RunState
from runstream.errors import BadRequestError, NotExistError
from runstream.events.run_config import RunConfig
from runstream.log.port import RawMessage
from runstream.run_states import RunPhase, RunResult
from runstream.subjects import group_root
from runstream.tables import ExecutorRow, ExecutorTaskRow, RunRow, RunTaskRow

DEFAULT_LIMIT = 25
MAX_LIMIT = 40


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """A query of runs; empty fields do not filter."""

    groups: tuple[str, ...] = ()
    """Groups, each of which includes the groups below it: `/project/a` has `/project/a/branch/b`, but not
    `/project/ab`."""
    phases: tuple[RunPhase, ...] = ()
    results: tuple[RunResult, ...] = ()
    name: str = ""
    waiting_approval: bool = False
    """Only runs with a task that waits for an approval."""
    last_run: bool = False
    """Only the last matching run of each group."""
    start: int = 0
    """Begin after the run of this sequence; 0 for the first."""
    start_counter: int = 0
    """Begin after this run number, whether that run exists or not; for groups of one root."""
    limit: int = DEFAULT_LIMIT
    """1 to 40."""
    ascending: bool = False


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of runs, in the order of the query."""

    runs: tuple[RunSummary, ...] = field(default=())
    next_start: int | None = None
    """The `start` of the next page; None on the last one."""


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
        runs.counter_group == group_root(group), runs.counter == counter, _within(group)
    )  # runs_by_counter
    row = await transaction.first(found)
    if row is None:
        raise _no_run(f"{group} #{counter}")
    return await _with_tasks(transaction, RunRow(**row))


def _no_run(which: str) -> NotExistError:
    return NotExistError(f"run {which} doesn't exist", code="runDoesNotExist", details={"run": which})


async def _with_tasks(transaction: Transaction, run: RunRow) -> RunRecord:
    tasks = select(tables.run_tasks).where(tables.run_tasks.c.run_id == run.id).order_by(tables.run_tasks.c.name)
    task_rows = [RunTaskRow(**row) for row in await transaction.rows(tasks)]
    state = run_of(run, task_rows)
    ids = {key for task in state.tasks.values() for key in (task.executor_task_id, *task.executions) if key}
    executor_tasks = select(tables.executor_tasks).where(tables.executor_tasks.c.id == any_of(ids))
    executed = [executor_task_of(ExecutorTaskRow(**row)) for row in await transaction.rows(executor_tasks)]
    return RunRecord(state, run.head, run.partition, {task.id: task for task in executed})


async def list_runs(transaction: Transaction, query: RunQuery) -> RunPage:
    """List the matching runs by sequence. Raises BadRequestError for a limit that is out of bounds."""
    if not 1 <= query.limit <= MAX_LIMIT:
        raise BadRequestError(
            f"limit {query.limit} is out of bounds", code="invalidLimit", hint=f"use 1 to {MAX_LIMIT}"
        )
    rows = await transaction.rows(listing_query(query))
    runs = tuple(_summary(row) for row in rows[: query.limit])
    return RunPage(runs, runs[-1].sequence if len(rows) > query.limit else None)


def listing_query(query: RunQuery) -> Select[tuple[object, ...]]:
    """Select one run more than the limit, to know whether there is a next page (runs_by_sequence, runs_by_group)."""
    runs = tables.runs.c
    tasks = tables.run_tasks.c
    waiting = select(tasks.name).where(tasks.run_id == runs.id, tasks.waiting_approval).order_by(tasks.name)
    listed = select(tables.runs, func.array(waiting.scalar_subquery(), type_=ARRAY(Text)).label("waiting"))
    if query.last_run:
        listed = listed.where(runs.sequence.in_(_last_of_groups(query)))
    else:
        listed = listed.where(*_matching(query))
    if query.start:
        listed = listed.where(runs.sequence > query.start if query.ascending else runs.sequence < query.start)
    if (number := query.start_counter) > 0:
        listed = listed.where(runs.counter > number if query.ascending else runs.counter < number)
    order = runs.sequence.asc() if query.ascending else runs.sequence.desc()
    return listed.order_by(order).limit(query.limit + 1)


def _last_of_groups(query: RunQuery) -> Select[tuple[int]]:
    runs = tables.runs.c
    return select(func.max(runs.sequence)).where(*_matching(query)).group_by(runs.group)


def _matching(query: RunQuery) -> list[ColumnElement[bool]]:
    runs = tables.runs.c
    conditions: list[ColumnElement[bool]] = []
    if query.groups:
        conditions.append(or_(*(_within(group) for group in query.groups)))
    if phases := [phase.value for phase in query.phases]:
        conditions.append(runs.phase.in_(phases))
    if results := [result.value for result in query.results]:
        conditions.append(runs.result.in_(results))
    if query.name:
        indexed = func.substr(runs.name, 1, literal_column(str(tables.INDEXED_CHARACTERS)))
        conditions += [indexed == query.name[: tables.INDEXED_CHARACTERS], runs.name == query.name]  # runs_by_name
    if query.waiting_approval:
        tasks = tables.run_tasks.c
        conditions.append(runs.id.in_(select(tasks.run_id).where(tasks.waiting_approval)))  # run_tasks_waiting
    return conditions


def _within(group: str) -> ColumnElement[bool]:
    """Match the group itself or below it, as a range of the index: `0` is the character after `/`."""
    column = tables.runs.c.group
    group = group.rstrip("/")
    return or_(column == group, and_(column >= f"{group}/", column < f"{group}0"))


def _summary(row: RowMapping) -> RunSummary:
    run = run_of(RunRow(**{name: row[name] for name in RunRow._fields}), ())
    return summary_of(run, tuple(row["waiting"]))


_SUMMARIZED = {*RunSummary.__struct_fields__} & {*RunState.__struct_fields__} - {"phase", "result"}


def summary_of(run: RunState, waiting: tuple[str, ...]) -> RunSummary:
    """Return the summary of a run; `waiting` are the names of its tasks that wait for an approval."""
    same = {name: getattr(run, name) for name in _SUMMARIZED}
    return RunSummary(
        **same,
        creation_time=run.enqueue_time,
        run_config_id=run.run_config,
        phase=run.phase,
        result=run.result,
        tasks_waiting_approval=waiting,
    )


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
