"""The projection's rows: one batch written in one transaction, and a worker's state loaded back.

A worker loads everything that is active when it starts, and archived aggregates when a commit needs them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Column, Executable, Table, not_, or_, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert

from runstream import tables
from runstream.commits import Position
from runstream.database.connection import Connection
from runstream.database.database import Database
from runstream.database.failures import UNSTORABLE, UnstorableError
from runstream.database.freshness import announcement, channel_of
from runstream.database.rows import (
    any_of,
    deleted_run_row,
    executor_of,
    executor_row,
    executor_task_of,
    executor_task_row,
    run_config_of,
    run_config_row,
    run_of,
    run_row,
    run_task_row,
    task_failure_row,
)
from runstream.database.transaction import Transaction, WriterTransaction
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import RunState, RunTask
from runstream.errors import ConflictError, InternalError
from runstream.events.run_config import RunConfig
from runstream.projections.fold import Changes, Needs, PartitionFold, Tracked
from runstream.tables import (
    CounterRow,
    DeletedRunRow,
    ExecutorRow,
    ExecutorTaskRow,
    JsonText,
    ParkedRow,
    Row,
    RunConfigRow,
    RunRow,
    RunTaskRow,
    TaskFailureRow,
)

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def upsert(table: Table, columns: Sequence[str]) -> str:
    """Return a statement that inserts rows or replaces those with the same key."""
    key = [column.name for column in table.primary_key]
    changed = [name for name in columns if name not in key]
    assignments = ", ".join(f'"{name}" = excluded."{name}"' for name in changed)
    return f"{_insert(table, columns)} ON CONFLICT ({_listed(key)}) DO UPDATE SET {assignments}"


def as_json(rows: Iterable[Row]) -> str:
    """Return the argument of these statements: the rows as one JSON text, encoded twice as fast as arrays.

    Raises ValueError for half a surrogate.
    """
    return msgspec.json.encode([row._asdict() for row in rows]).decode()


def _insert(table: Table, columns: Sequence[str]) -> str:
    typed = ", ".join(f'"{name}" {_type(table.c[name])}' for name in columns)
    values = ", ".join(_value(table.c[name]) for name in columns)
    # Names and types are those of runstream.tables; values travel as a parameter.
    return (
        f"INSERT INTO {table.name} ({_listed(columns)}) SELECT {values} "  # noqa: S608
        f"FROM json_to_recordset($1) AS rows ({typed})"
    )


def _value(column: Column[object]) -> str:
    return f'"{column.name}"::json' if isinstance(column.type, JsonText) else f'"{column.name}"'


def _type(column: Column[object]) -> str:
    return "TEXT" if isinstance(column.type, JsonText) else column.type.compile(_DIALECT).partition(" COLLATE")[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


APPLY_SECONDS = 30.0
_MAX_SHOWN = 4000
"""Characters of a reason, or a subject, of a parked commit."""

_MOVE = """
WITH moved AS (
    UPDATE checkpoints SET sequence = $5, run_sequence = greatest(run_sequence, $6)
    WHERE projection = $1 AND partition = $2 AND epoch = $3 AND sequence = $4
    RETURNING partition
)
SELECT pg_notify($7, $8) FROM moved
"""
_WHERE = "SELECT epoch, sequence FROM checkpoints WHERE projection = $1 AND partition = $2"
_UNPARK = "DELETE FROM parked WHERE projection = $1 AND partition = $2 AND epoch = $3 AND sequence = ANY($4)"

UPSERTS = {
    table.name: upsert(table, row._fields)
    for table, row in (
        (tables.counters, CounterRow),
        (tables.runs, RunRow),
        (tables.run_tasks, RunTaskRow),
        (tables.task_failures, TaskFailureRow),
        (tables.deleted_runs, DeletedRunRow),
        (tables.executor_tasks, ExecutorTaskRow),
        (tables.executors, ExecutorRow),
        (tables.parked, ParkedRow),
    )
}
"""By table: the statement that inserts its rows or replaces those with the same key."""
_RUN_CONFIGS = f"{_insert(tables.run_configs, RunConfigRow._fields)} ON CONFLICT DO NOTHING"


_DELETE_RUNS = (
    "DELETE FROM run_tasks WHERE run_id = ANY($1)",
    "DELETE FROM task_failures WHERE run_id = ANY($1)",
    "DELETE FROM runs WHERE id = ANY($1)",
)
_DELETE_EXECUTOR_TASKS = """
DELETE FROM executor_tasks AS gone
WHERE (run_id = ANY($1) OR id = ANY($2))
    AND NOT EXISTS (SELECT FROM runs WHERE runs.id = gone.run_id)
    AND NOT EXISTS (SELECT FROM run_tasks AS kept WHERE kept.kept AND kept.executor_task_id = gone.id)
"""
"""Executor tasks go with the last run that shows them: their own, or a restart that keeps the task (run_tasks_kept)."""


async def delete_runs(connection: Connection, runs: Mapping[str, Sequence[str]]) -> None:
    """Delete the rows of runs, given by id with the ids of the executor tasks that they keep of earlier runs."""
    for statement in _DELETE_RUNS:
        await connection.execute(statement, [*runs])
    await connection.execute(_DELETE_EXECUTOR_TASKS, [*runs], [key for kept in runs.values() for key in kept])


class FencedError(ConflictError):
    """The checkpoint moved: another worker has taken the partition over."""

    def __init__(self, changes: Changes, found: Position | None) -> None:
        at = f"{found.epoch}:{found.sequence}" if found is not None else "missing"
        super().__init__(
            f"the checkpoint of partition {changes.partition} is {at}, this worker left it at "
            f"{changes.epoch}:{changes.before}: another scheduler has taken the partition over",
            code="fenced",
            details={"partition": changes.partition, "epoch": changes.epoch, "before": changes.before},
        )
        self.found = found


class ProjectionStore:
    """The writer of the projection of the runs service."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._channel = channel_of(database.schema)

    async def apply(self, changes: Changes, *, unparked: tuple[int, ...] = ()) -> None:
        """Write the changes and move the checkpoint from `before` to `after`, all or nothing.

        `unparked` are sequences of parked commits that are applied now. Applying the same changes again
        after a lost connection is a success. Raises FencedError, UnstorableError for a value that Postgres
        cannot hold, and InternalError when the database fails.
        """
        with storable():
            statements, deleted = _statements(changes), changes.deleted

        async def work(writing: WriterTransaction) -> None:
            connection = writing.connection
            if not await self._move(connection, changes):
                return
            for statement, rows in statements:
                await connection.execute(statement, rows)
            if deleted:
                await delete_runs(connection, deleted)
            if unparked:
                await connection.execute(_UNPARK, tables.PROJECTION, changes.partition, changes.epoch, list(unparked))

        await self._database.write(work, timeout=APPLY_SECONDS)

    async def _move(self, connection: Connection, changes: Changes) -> bool:
        """Compare and set the checkpoint; return False when these changes are applied already."""
        moved = await connection.fetchrow(
            _MOVE,
            tables.PROJECTION,
            changes.partition,
            changes.epoch,
            changes.before,
            changes.after,
            changes.run_sequence,
            self._channel,
            announcement(Position(changes.epoch, changes.partition, changes.after)),
        )
        if moved is not None:
            return True
        row = await connection.fetchrow(_WHERE, tables.PROJECTION, changes.partition)
        found = Position(row["epoch"], changes.partition, row["sequence"]) if row is not None else None
        if found == Position(changes.epoch, changes.partition, changes.after):
            return False
        raise FencedError(changes, found)


def _statements(changes: Changes) -> list[tuple[str, str]]:
    """Return the statements that write these changes, each with its rows, for the tables that change."""
    partition = changes.partition
    configs = [run_config_row(key, config, partition) for key, config in changes.configs.items()]
    changed_tasks = _changed_tasks(changes)
    rows: dict[str, Sequence[Row]] = {
        "counters": [CounterRow(partition, root, last) for root, last in changes.counters.items()],
        "runs": _run_rows(changes),
        "run_tasks": [run_task_row(run.id, task) for run, task in changed_tasks],
        "task_failures": [
            row for run, task in changed_tasks if (row := task_failure_row(run, task, partition)) is not None
        ],
        "deleted_runs": deleted_rows(changes),
        "executor_tasks": [
            executor_task_row(c.now.state, c.now.head, partition) for c in changes.executor_tasks.values()
        ],
        "executors": [executor_row(c.now.state, c.now.head, partition) for c in changes.executors.values()],
        "parked": parked_rows(changes),
    }
    batches = [(_RUN_CONFIGS, configs), *((UPSERTS[table], changed) for table, changed in rows.items())]
    return [(statement, as_json(changed)) for statement, changed in batches if changed]


def _run_rows(changes: Changes) -> list[RunRow]:
    """Return rows of the runs that a commit of their own changed; events of their tasks do not change their rows."""
    return [
        run_row(changed.now.state, changed.now.head, changes.partition)
        for changed in changes.runs.values()
        if (changed.before is None or changed.before.head != changed.now.head) and changed.now.state.deleted_at is None
    ]


def deleted_rows(changes: Changes) -> list[DeletedRunRow]:
    """Return the rows by which deleted runs are found; a number that is only proposed may become another run's."""
    runs = (changes.runs[run_id].now.state for run_id in changes.deleted)
    return [deleted_run_row(run, changes.partition) for run in runs if run.numbered]


def _changed_tasks(changes: Changes) -> list[tuple[RunState, RunTask]]:
    """Return the tasks that changed, with their runs: a fold makes new objects only for those."""
    found: list[tuple[RunState, RunTask]] = []
    for changed in changes.runs.values():
        run = changed.now.state
        if run.deleted_at is not None:
            continue
        before = changed.before.state.tasks if changed.before is not None else {}
        found.extend((run, task) for name, task in run.tasks.items() if before.get(name) is not task)
    return found


@contextmanager
def storable() -> Iterator[None]:
    """Raise UnstorableError for a value that Python cannot encode for Postgres, such as half a surrogate."""
    try:
        yield
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise UnstorableError(f"{UNSTORABLE}: {type(error).__name__}: {error}", code="unstorable") from error


def parked_rows(changes: Changes) -> list[ParkedRow]:
    """Return the rows of parked commits."""
    return [
        ParkedRow(
            tables.PROJECTION,
            changes.partition,
            changes.epoch,
            parked.sequence,
            shown(parked.subject),
            shown(parked.aggregate),
            shown(parked.reason),
        )
        for parked in changes.parked.values()
    ]


def shown(text: str) -> str:
    """Return the text as a row can hold it: bounded, without NUL and half surrogates."""
    return text[:_MAX_SHOWN].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


LOAD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """Aggregates loaded from their rows, those that exist."""

    runs: dict[str, Tracked[RunState]] = field(default_factory=dict)
    executor_tasks: dict[str, Tracked[ExecutorTask]] = field(default_factory=dict)
    configs: dict[str, RunConfig] = field(default_factory=dict)


async def load_partition(database: Database, partition: int, epoch: int) -> PartitionFold:
    """Load a partition as of its checkpoint: all runs that are not archived, with their tasks and executor tasks.

    A partition that was never projected begins at 0. Raises InternalError when the checkpoint is of another
    epoch than the log's.
    """

    checkpoints = tables.checkpoints
    begin = insert(checkpoints).values(
        projection=tables.PROJECTION, partition=partition, epoch=epoch, sequence=0, run_sequence=0
    )
    await database.transaction(lambda transaction: transaction.execute(begin.on_conflict_do_nothing()))
    async with database.snapshot(timeout=LOAD_SECONDS) as transaction:
        checkpoint = await transaction.first(
            select(checkpoints).where(
                checkpoints.c.projection == tables.PROJECTION, checkpoints.c.partition == partition
            )
        )
        if checkpoint is None or checkpoint["epoch"] != epoch:
            at = f"of epoch {checkpoint['epoch']}" if checkpoint is not None else "missing"
            raise InternalError(
                f"the checkpoint of partition {partition} is {at}, the log is of epoch {epoch}",
                code="foreignCheckpoint",
                details={"partition": partition, "epoch": epoch},
                hint="database and log do not belong together: check both URLs, the namespace and the schema",
            )
        active = select(tables.runs).where(tables.runs.c.partition == partition, not_(tables.runs.c.archived))
        loaded = await _with_what_belongs(transaction, partition, await _runs(transaction, active), ())  # runs_active
        executors = await transaction.rows(select(tables.executors).where(tables.executors.c.partition == partition))
        counters = await transaction.rows(select(tables.counters).where(tables.counters.c.partition == partition))
    return PartitionFold(
        partition,
        epoch,
        checkpoint["sequence"],
        runs=loaded.runs,
        executor_tasks=loaded.executor_tasks,
        executors={row.id: Tracked(executor_of(row), row.head) for row in (ExecutorRow(**e) for e in executors)},
        configs=loaded.configs,
        counters={row["root"]: row["last"] for row in counters},
        run_sequence=checkpoint["run_sequence"],
    )


async def load_needed(database: Database, partition: int, needs: Needs) -> Loaded:
    """Load what a batch needs: runs with all their parts, executor tasks with their runs, run configs."""
    tasks, runs = tables.executor_tasks.c, tables.runs.c
    owners = select(tasks.run_id).where(tasks.id == any_of(needs.executor_tasks))
    wanted = select(tables.runs).where(
        runs.partition == partition, or_(runs.id == any_of(needs.runs), runs.id.in_(owners))
    )
    async with database.snapshot(timeout=LOAD_SECONDS) as transaction:
        return await _with_what_belongs(transaction, partition, await _runs(transaction, wanted), needs.configs)


async def _runs(transaction: Transaction, statement: Executable) -> list[RunRow]:
    return [RunRow(**row) for row in await transaction.rows(statement)]


async def _with_what_belongs(
    transaction: Transaction, partition: int, runs: list[RunRow], configs: Iterable[str]
) -> Loaded:
    """Load the runs with their tasks, executor tasks (executor_tasks_by_run) and run configs, and more run configs."""
    ids = [row.id for row in runs]
    tasks: defaultdict[str, list[RunTaskRow]] = defaultdict(list)
    of_runs = select(tables.run_tasks).where(tables.run_tasks.c.run_id == any_of(ids)).order_by(tables.run_tasks.c.name)
    for task in await transaction.rows(of_runs):
        tasks[task["run_id"]].append(RunTaskRow(**task))
    executed = await transaction.rows(
        select(tables.executor_tasks).where(tables.executor_tasks.c.run_id == any_of(ids))
    )
    stored = tables.run_configs.c
    hashes = {row.run_config for row in runs} | set(configs)
    contents = await transaction.rows(
        select(stored.hash, stored.content).where(stored.partition == partition, stored.hash == any_of(hashes))
    )
    return Loaded(
        {row.id: Tracked(run_of(row, tasks[row.id]), row.head) for row in runs},
        {row.id: Tracked(executor_task_of(row), row.head) for row in (ExecutorTaskRow(**task) for task in executed)},
        {row["hash"]: run_config_of(row["content"]) for row in contents},
    )
