"""How a worker gets its state back from the rows: everything that is active, and what is cold when it is needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Executable, RowMapping, not_, or_, select
from sqlalchemy.dialects.postgresql import insert

from runstream import tables
from runstream.database.database import Database
from runstream.database.keys import any_of
from runstream.database.rows import (
    ExecutorRow,
    ExecutorTaskRow,
    RunRow,
    RunTaskRow,
    executor_of,
    executor_task_of,
    run_config_of,
    run_of,
)
from runstream.database.transaction import Transaction
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import Run
from runstream.errors import InternalError
from runstream.events.run_config import RunConfig
from runstream.projections.fold import Needs, PartitionFold, Tracked

LOAD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was looked up in the rows; what is not there is missing here."""

    runs: dict[str, Tracked[Run]] = field(default_factory=dict)
    executor_tasks: dict[str, Tracked[ExecutorTask]] = field(default_factory=dict)
    configs: dict[str, RunConfig] = field(default_factory=dict)


async def load_partition(database: Database, partition: int, epoch: int) -> PartitionFold:
    """The state of a partition as of its checkpoint: all runs that are not archived, and what belongs to them.

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
            raise _other_epoch(partition, epoch, checkpoint)
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


def _other_epoch(partition: int, epoch: int, found: RowMapping | None) -> InternalError:
    at = f"of epoch {found['epoch']}" if found is not None else "missing"
    return InternalError(
        f"the checkpoint of partition {partition} is {at}, the log is of epoch {epoch}",
        code="foreignCheckpoint",
        details={"partition": partition, "epoch": epoch},
        hint="database and log do not belong together: check both URLs, the namespace and the schema",
    )


async def load_needed(database: Database, partition: int, needs: Needs) -> Loaded:
    """What a batch needs: runs (with everything that belongs to them), executor tasks with their runs, run configs."""
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
    """The runs with their tasks, executor tasks (executor_tasks_by_run) and run configs; and further run configs."""
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
