"""How a batch becomes rows: rows and checkpoint change in one transaction, and the checkpoint is the fence.

The checkpoint is compared and set first. When it is not where the batch began, somebody else projects this
partition, nothing is written, and `FencedError` ends the worker. What is written can be made again from the log, so
the transaction does not wait for the disk: after a crash of Postgres rows and checkpoint are older together.
Each batch that was applied is announced (NOTIFY) with its position, for readers of their own writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runstream import tables
from runstream.commits import Position
from runstream.database.channel import announcement, channel_of
from runstream.database.database import Database
from runstream.database.failures import UNSTORABLE, UnstorableError
from runstream.database.rows import (
    CounterRow,
    ExecutorRow,
    ExecutorTaskRow,
    ParkedRow,
    RunConfigRow,
    RunRow,
    RunTaskRow,
    executor_row,
    executor_task_row,
    run_config_row,
    run_row,
    run_task_row,
)
from runstream.database.writing import Connection, Writing
from runstream.errors import ConflictError
from runstream.projections.fold import Changes
from runstream.projections.statements import by_columns, insert_new, upsert

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

_RUNS = upsert(tables.runs, RunRow._fields)
_RUN_TASKS = upsert(tables.run_tasks, RunTaskRow._fields)
_EXECUTOR_TASKS = upsert(tables.executor_tasks, ExecutorTaskRow._fields)
_EXECUTORS = upsert(tables.executors, ExecutorRow._fields)
_COUNTERS = upsert(tables.counters, CounterRow._fields)
_RUN_CONFIGS = insert_new(tables.run_configs, RunConfigRow._fields)
_PARKED = upsert(tables.parked, ParkedRow._fields)


class FencedError(ConflictError):
    """The checkpoint is not where this worker left it: another one has taken the partition over."""

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
    """Writes the projection of the runs service."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._channel = channel_of(database.schema)

    async def apply(self, changes: Changes, *, unparked: tuple[int, ...] = ()) -> None:
        """Write what changed, and move the checkpoint from `before` to `after`; all or nothing.

        `unparked` are sequences of parked commits that were applied after all. Applying the same changes again
        after a lost connection is a success. Raises FencedError, UnstorableError for a value that Postgres
        cannot hold, and InternalError when the database fails.
        """
        with storable():
            statements = _statements(changes)

        async def work(writing: Writing) -> None:
            connection = writing.connection
            if not await self._move(connection, changes):
                return
            for statement, arguments in statements:
                with storable():
                    await connection.execute(statement, *arguments)
            if unparked:
                await connection.execute(_UNPARK, tables.PROJECTION, changes.partition, changes.epoch, list(unparked))

        await self._database.write(work, timeout=APPLY_SECONDS)

    async def _move(self, connection: Connection, changes: Changes) -> bool:
        """Compare and set the checkpoint; False when these very changes are applied already."""
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


def _statements(changes: Changes) -> list[tuple[str, list[tuple[object, ...]]]]:
    """The statements that write these changes, each with its columns; tables without a change have none."""
    batches = (
        (_RUN_CONFIGS, [run_config_row(key, config, changes.partition) for key, config in changes.configs.items()]),
        (_COUNTERS, [CounterRow(changes.partition, root, last) for root, last in changes.counters.items()]),
        (_RUNS, _run_rows(changes)),
        (_RUN_TASKS, _run_task_rows(changes)),
        (
            _EXECUTOR_TASKS,
            [executor_task_row(c.now.state, c.now.head, changes.partition) for c in changes.executor_tasks.values()],
        ),
        (_EXECUTORS, [executor_row(c.now.state, c.now.head, changes.partition) for c in changes.executors.values()]),
        (_PARKED, parked_rows(changes)),
    )
    return [(statement, by_columns(rows)) for statement, rows in batches if rows]


def _run_rows(changes: Changes) -> list[RunRow]:
    """Runs that a commit of their own changed; what happens to their tasks does not touch their rows."""
    return [
        run_row(changed.now.state, changed.now.head, changes.partition)
        for changed in changes.runs.values()
        if changed.before is None or changed.before.head != changed.now.head
    ]


def _run_task_rows(changes: Changes) -> list[RunTaskRow]:
    """Tasks that are other objects than before: a fold makes new ones only for what it changes."""
    rows: list[RunTaskRow] = []
    for changed in changes.runs.values():
        run = changed.now.state
        before = changed.before.state.tasks if changed.before is not None else {}
        rows.extend(run_task_row(run.id, task) for name, task in run.tasks.items() if before.get(name) is not task)
    return rows


@contextmanager
def storable() -> Iterator[None]:
    """Raise UnstorableError for what Python itself cannot make a value of Postgres of, such as half a surrogate."""
    try:
        yield
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise UnstorableError(f"{UNSTORABLE}: {type(error).__name__}: {error}", code="unstorable") from error


def parked_rows(changes: Changes) -> list[ParkedRow]:
    """The rows of what was parked."""
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
