"""One partition's rows as one snapshot of the database has them, read in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Select, Table, exists, not_, select

from runstream import tables
from runstream.database.keys import any_of
from runstream.database.rows import (
    CounterRow,
    ExecutorRow,
    ExecutorTaskRow,
    ParkedRow,
    Row,
    RunConfigRow,
    RunRow,
    RunTaskRow,
)
from runstream.database.transaction import Transaction
from runstream.projections.comparing import Key

PIECE = 1000
"""Ids that are fetched at once."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far the partition is projected."""

    epoch: int
    sequence: int
    run_sequence: int


@dataclass(frozen=True, slots=True)
class RunRows:
    """The rows of some runs, and of what belongs to them, by key."""

    runs: dict[Key, Row]
    run_tasks: dict[Key, Row]
    executor_tasks: dict[Key, Row]

    def tables(self) -> Mapping[str, dict[Key, Row]]:
        """The rows of each table."""
        return {"runs": self.runs, "run_tasks": self.run_tasks, "executor_tasks": self.executor_tasks}


class PartitionRows:
    """Reads the rows of one partition."""

    def __init__(self, transaction: Transaction, partition: int) -> None:
        self._transaction = transaction
        self.partition = partition

    async def checkpoint(self) -> Checkpoint | None:
        """The checkpoint; None when the partition was never projected."""
        columns = tables.checkpoints.c
        row = await self._transaction.first(
            select(columns.epoch, columns.sequence, columns.run_sequence).where(
                columns.projection == tables.PROJECTION, columns.partition == self.partition
            )
        )
        return Checkpoint(**row) if row is not None else None

    async def runs(self, ids: Iterable[str]) -> RunRows:
        """The rows of these runs; what is not there is missing."""
        wanted = any_of(ids)
        runs, tasks, executed = tables.runs, tables.run_tasks, tables.executor_tasks
        found = await self._transaction.rows(self._mine(runs).where(runs.c.id == wanted))
        of_runs = await self._transaction.rows(select(tasks).where(tasks.c.run_id == wanted))
        executor_tasks = await self._transaction.rows(self._mine(executed).where(executed.c.run_id == wanted))
        return RunRows(
            {(row["id"],): RunRow(**row) for row in found},
            {(row["run_id"], row["name"]): RunTaskRow(**row) for row in of_runs},
            {(row["id"],): ExecutorTaskRow(**row) for row in executor_tasks},
        )

    async def configs(self, hashes: Iterable[str]) -> dict[Key, Row]:
        """The rows of these run configs."""
        configs = tables.run_configs
        rows = await self._transaction.rows(self._mine(configs).where(configs.c.hash == any_of(hashes)))
        return {(row["hash"],): RunConfigRow(**row) for row in rows}

    async def executors(self) -> dict[Key, Row]:
        """The rows of all executors."""
        rows = await self._transaction.rows(self._mine(tables.executors))
        return {(row["id"],): ExecutorRow(**row) for row in rows}

    async def counters(self) -> dict[Key, Row]:
        """The rows of all counters."""
        rows = await self._transaction.rows(self._mine(tables.counters))
        return {(row["root"],): CounterRow(**row) for row in rows}

    async def parked(self) -> dict[Key, Row]:
        """The rows of all parked commits."""
        columns = [tables.parked.c[name] for name in ParkedRow._fields]
        mine = select(*columns).where(
            tables.parked.c.partition == self.partition, tables.parked.c.projection == tables.PROJECTION
        )
        rows = await self._transaction.rows(mine)
        return {(row["epoch"], row["sequence"]): ParkedRow(**row) for row in rows}

    async def ids(self, table: Table, column: str) -> AsyncIterator[str]:
        """The ids of all rows of a table that has a partition."""
        connection = await self._transaction.driver()
        # Names are those of runstream.tables.
        asked = f'SELECT "{column}" FROM {table.name} WHERE partition = $1'  # noqa: S608
        async for row in connection.cursor(asked, self.partition, prefetch=PIECE):
            yield row[0]

    async def orphans(self) -> list[Key]:
        """Rows of tasks whose run is in no partition."""
        tasks = tables.run_tasks.c
        without = not_(exists().where(tables.runs.c.id == tasks.run_id))
        rows = await self._transaction.rows(select(tasks.run_id, tasks.name).where(without).limit(PIECE))
        return [(row["run_id"], row["name"]) for row in rows]

    def _mine(self, table: Table) -> Select[tuple[object, ...]]:
        return select(table).where(table.c.partition == self.partition)
