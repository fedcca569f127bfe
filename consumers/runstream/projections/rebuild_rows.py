"""Rows on their way into an empty schema: new ones are copied, those that are there already are replaced.

What is written here can be made again from the log, so that no transaction waits for the disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from runstream import tables
from runstream.database.database import Database
from runstream.database.rows import (
    CounterRow,
    ExecutorRow,
    ExecutorTaskRow,
    ParkedRow,
    Row,
    RunConfigRow,
    RunRow,
    RunTaskRow,
    executor_task_row,
    run_row,
    run_task_row,
)
from runstream.database.writing import Writing
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import Run
from runstream.projections.fold import Tracked
from runstream.projections.statements import by_columns, upsert

WRITE_SECONDS = 600.0
_MAX_BIGINT = 2**63 - 1

_COPIED = (
    ("run_configs", RunConfigRow._fields),
    ("runs", RunRow._fields),
    ("run_tasks", RunTaskRow._fields),
    ("executor_tasks", ExecutorTaskRow._fields),
)
_REPLACED = {
    "counters": upsert(tables.counters, CounterRow._fields),
    "runs": upsert(tables.runs, RunRow._fields),
    "run_tasks": upsert(tables.run_tasks, RunTaskRow._fields),
    "executor_tasks": upsert(tables.executor_tasks, ExecutorTaskRow._fields),
    "executors": upsert(tables.executors, ExecutorRow._fields),
    "parked": upsert(tables.parked, ParkedRow._fields),
}
_CHECKPOINT = """
INSERT INTO checkpoints (projection, partition, epoch, sequence, run_sequence) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (projection, partition) DO UPDATE SET
    epoch = excluded.epoch, sequence = excluded.sequence, run_sequence = excluded.run_sequence
"""
_CLEAR = (
    "DELETE FROM run_tasks USING runs WHERE runs.id = run_tasks.run_id AND runs.partition = $1",
    *(
        f"DELETE FROM {table} WHERE partition = $1"  # noqa: S608  names of runstream.tables
        for table in ("runs", "executor_tasks", "executors", "run_configs", "counters", "parked", "checkpoints")
    ),
)


@dataclass(frozen=True, slots=True)
class Whole:
    """A run and everything that belongs to it."""

    run: Tracked[Run]
    tasks: tuple[Tracked[ExecutorTask], ...]


@dataclass(slots=True)
class Rows:
    """Rows of one partition that wait to be written."""

    partition: int
    copied: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table, _ in _COPIED})
    replaced: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table in _REPLACED})

    def add_run(self, whole: Whole, *, again: bool) -> None:
        """The rows of a run; `again` when it has rows already."""
        into = self.replaced if again else self.copied
        run = whole.run.state
        into["runs"].append(run_row(run, whole.run.head, self.partition))
        into["run_tasks"].extend(run_task_row(run.id, task) for task in run.tasks.values())
        into["executor_tasks"].extend(executor_task_row(t.state, t.head, self.partition) for t in whole.tasks)

    async def write(self, database: Database, checkpoint: tuple[int, int, int] | None = None) -> None:
        """Write all of them, with the checkpoint (epoch, sequence, run sequence) if there is one; all or nothing.

        Raises UnstorableError for a value that Postgres cannot hold, InternalError when the database fails.
        """

        async def work(writing: Writing) -> None:
            connection = writing.connection
            for table, columns in _COPIED:
                if self.copied[table]:
                    await connection.copy_records_to_table(table, records=self.copied[table], columns=columns)
            for table, statement in _REPLACED.items():
                if self.replaced[table]:
                    await connection.execute(statement, *by_columns(self.replaced[table]))
            if checkpoint is not None:
                await connection.execute(_CHECKPOINT, tables.PROJECTION, self.partition, *checkpoint)

        await database.write(work, timeout=WRITE_SECONDS)

    def unstorable(self) -> str:
        """What of these rows Postgres cannot hold; empty for nothing."""
        rows: Iterable[Row] = (row for table in (*self.copied.values(), *self.replaced.values()) for row in table)
        for row in rows:
            for column, value in zip(row._fields, row, strict=True):
                if isinstance(value, str) and "\0" in value:
                    return f"{column} has a NUL"
                if isinstance(value, int) and abs(value) > _MAX_BIGINT:
                    return f"{column} is out of range"
        return ""


async def clear_partition(database: Database, partition: int) -> None:
    """Take away all rows of a partition."""

    async def work(writing: Writing) -> None:
        for statement in _CLEAR:
            await writing.connection.execute(statement, partition)

    await database.write(work, timeout=WRITE_SECONDS)
