"""fsck: fold the log again and compare every row of every table with the fold.

Each partition is folded up to its checkpoint and compared with one snapshot of the database, while the service runs.
An archived run is compared and forgotten as soon as its rows have the versions that the fold has reached: memory holds
what is active at one time, and one id (about 100 bytes) for each run, executor task and run config of the partition.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Table, exists, not_, select

from runstream import tables
from runstream.commits import DecodedCommit, StoredCommit
from runstream.counting import counted
from runstream.database.database import Database
from runstream.database.failures import UNSTORABLE
from runstream.database.rows import (
    any_of,
    executor_row,
    executor_task_row,
    run_config_row,
    run_row,
    run_task_row,
    task_failure_rows,
)
from runstream.database.transaction import Transaction
from runstream.events.run import RunDeleted, RunRestarted
from runstream.events.run_config import RunConfigStored
from runstream.feed import Item, classify, commits_of, fold_or_park, read_skips, read_up_to, refuse
from runstream.log.port import Log, RawMessage
from runstream.projections.fold import Changes, Parked, PartitionFold
from runstream.projections.store import deleted_rows, parked_rows
from runstream.subjects import Address
from runstream.tables import (
    CounterRow,
    DeletedRunRow,
    ExecutorRow,
    ExecutorTaskRow,
    ParkedRow,
    Row,
    RunConfigRow,
    RunRow,
    RunTaskRow,
    TaskFailureRow,
)

Key: TypeAlias = tuple[object, ...]
D = TypeVar("D")
R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A value or a row that differs from the log."""

    table: str
    key: Key
    column: str
    """Empty when the whole row is missing or unexpected."""
    log: object
    database: object

    def __str__(self) -> str:
        key = ", ".join(map(str, self.key))
        place = f"{self.table}[{key}]" + (f".{self.column}" if self.column else "")
        return f"{place}: the log says {_shown(self.log)}, the database {_shown(self.database)}"


MAX_DIFFERENCES = 1000
"""Differences listed; further ones are only counted."""
NO_ROW = "no row"
"""Stands for a missing row."""
A_ROW = "a row"
"""Stands for a whole row, whatever its values."""


@dataclass(slots=True)
class Differences(Generic[D]):
    """Differences: all are counted, the first are listed."""

    count: int = 0
    """Number of differences."""
    differences: list[D] = field(default_factory=list)
    """The first differences."""

    @property
    def clean(self) -> bool:
        """True when nothing differs."""
        return self.count == 0

    @property
    def exit_status(self) -> int:
        """0 without differences, else 1."""
        return 0 if self.clean else 1

    @property
    def verdict(self) -> str:
        """The number of differences, as text."""
        return "no difference" if self.clean else counted(self.count, "difference")

    def add(self, differences: Iterable[D]) -> None:
        """Count differences and list the first."""
        for difference in differences:
            self.count += 1
            if len(self.differences) < MAX_DIFFERENCES:
                self.differences.append(difference)

    def summary(self) -> list[str]:
        """Return a line for each listed difference, and one for the number of further ones."""
        hidden = self.count - len(self.differences)
        return [*map(str, self.differences), *([f"… and {hidden} more"] if hidden else [])]


@dataclass(slots=True)
class FsckFindings(Differences[RowDifference]):
    """The result of comparing log and projection."""

    commits: int = 0
    rows: int = 0

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        return [*self.summary(), f"{counted(self.commits, 'commit')}, {counted(self.rows, 'row')}: {self.verdict}"]


def compare(table: str, log: Mapping[Key, Row], database: Mapping[Key, Row]) -> Iterator[RowDifference]:
    """Yield the differences between the rows of one table, by key."""
    for key, expected in log.items():
        found = database.get(key)
        if found is None:
            yield RowDifference(table, key, "", A_ROW, NO_ROW)
        elif found != expected:
            for column, wanted, there in zip(expected._fields, expected, found, strict=True):
                if wanted != there:
                    yield RowDifference(table, key, column, wanted, there)
    yield from unexpected(table, database.keys() - log.keys())


def unexpected(table: str, keys: Iterable[Key]) -> Iterator[RowDifference]:
    """Yield a difference for each row that the log does not have."""
    for key in sorted(keys, key=str):
        yield RowDifference(table, key, "", NO_ROW, A_ROW)


def _shown(value: object) -> str:
    if value in (NO_ROW, A_ROW):
        return str(value)
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"


PIECE = 1000
"""Ids that are fetched at once."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The checkpoint of a partition."""

    epoch: int
    sequence: int
    run_sequence: int


@dataclass(frozen=True, slots=True)
class RunRows:
    """The rows of some runs, their tasks and executor tasks, by key."""

    runs: dict[Key, RunRow] = field(default_factory=dict)
    run_tasks: dict[Key, RunTaskRow] = field(default_factory=dict)
    task_failures: dict[Key, TaskFailureRow] = field(default_factory=dict)
    executor_tasks: dict[Key, ExecutorTaskRow] = field(default_factory=dict)

    def tables(self) -> Mapping[str, Mapping[Key, Row]]:
        """Return the rows of each table."""
        return {
            "runs": self.runs,
            "run_tasks": self.run_tasks,
            "task_failures": self.task_failures,
            "executor_tasks": self.executor_tasks,
        }

    def of(self, run_ids: set[str]) -> RunRows:
        """Return the rows that belong to these runs."""
        return RunRows(
            {key: row for key, row in self.runs.items() if row.id in run_ids},
            {key: row for key, row in self.run_tasks.items() if row.run_id in run_ids},
            {key: row for key, row in self.task_failures.items() if row.run_id in run_ids},
            {key: row for key, row in self.executor_tasks.items() if row.run_id in run_ids},
        )


class PartitionRows:
    """The rows of one partition, as one snapshot of the database has them."""

    def __init__(self, transaction: Transaction, partition: int) -> None:
        self._transaction = transaction
        self.partition = partition

    async def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint; None when the partition was never projected."""
        columns = tables.checkpoints.c
        row = await self._transaction.first(
            select(columns.epoch, columns.sequence, columns.run_sequence).where(
                columns.projection == tables.PROJECTION, columns.partition == self.partition
            )
        )
        return Checkpoint(**row) if row is not None else None

    async def runs(self, ids: Iterable[str]) -> RunRows:
        """Return the rows of these runs, those that exist."""
        wanted = any_of(ids)
        runs, tasks, failures, executed = tables.runs, tables.run_tasks, tables.task_failures, tables.executor_tasks
        of_runs = await self._transaction.rows(select(tasks).where(tasks.c.run_id == wanted))
        return RunRows(
            await self.read(RunRow, runs, "id", runs.c.id == wanted),
            {(row["run_id"], row["name"]): RunTaskRow(**row) for row in of_runs},
            await self.read(TaskFailureRow, failures, "run_id task", failures.c.run_id == wanted),
            await self.read(ExecutorTaskRow, executed, "id", executed.c.run_id == wanted),
        )

    async def executor_tasks(self, ids: Iterable[str]) -> dict[Key, ExecutorTaskRow]:
        """Return the rows of these executor tasks."""
        executed = tables.executor_tasks
        return await self.read(ExecutorTaskRow, executed, "id", executed.c.id == any_of(ids))

    async def parked(self) -> dict[Key, ParkedRow]:
        """Return the rows of all parked commits."""
        parked = tables.parked
        return await self.read(ParkedRow, parked, "epoch sequence", parked.c.projection == tables.PROJECTION)

    async def read(self, kind: type[R], table: Table, key: str, *where: ColumnElement[bool]) -> dict[Key, R]:
        """Return the rows of the partition in a table, by the columns named in `key`."""
        columns = [table.c[name] for name in kind._fields]
        rows = await self._transaction.rows(select(*columns).where(table.c.partition == self.partition, *where))
        return {tuple(row[name] for name in key.split()): kind(**row) for row in rows}

    async def ids(self, table: Table, column: str) -> AsyncIterator[str]:
        """Yield the ids of the partition's rows in a table."""
        connection = await self._transaction.driver()
        # Names are those of runstream.tables.
        asked = f'SELECT "{column}" FROM {table.name} WHERE partition = $1'  # noqa: S608
        async for row in connection.cursor(asked, self.partition, prefetch=PIECE):
            yield row[0]

    async def orphans(self) -> list[Key]:
        """Return the keys of run tasks whose run does not exist."""
        tasks = tables.run_tasks.c
        without = not_(exists().where(tables.runs.c.id == tasks.run_id))
        rows = await self._transaction.rows(select(tasks.run_id, tasks.name).where(without).limit(PIECE))
        return [(row["run_id"], row["name"]) for row in rows]


BATCH = 500
MAX_CONFIGS = 2000
"""Run configs kept in memory; others are read from the log again when needed."""


class PartitionCheck:
    """The check of one partition: folds it up to its checkpoint and compares aggregates as soon as they are final."""

    def __init__(self, rows: PartitionRows, log: Log, report: FsckFindings) -> None:
        self._rows = rows
        self._log = log
        self._report = report
        self._fold = PartitionFold(rows.partition, log.epoch)
        self._parked_aggregates: set[str] = set()
        self._parked: dict[Key, ParkedRow] = {}
        self._unstorable: dict[int, str] = {}
        """Reasons of commits that fold but whose rows Postgres refuses, by sequence; only the database knows them."""
        self._runs: set[str] = set()
        self._deleted: set[str] = set()
        self._executor_tasks: set[str] = set()
        self._of_run: dict[str, set[str]] = {}
        """The executor tasks of each run in memory, whether it still names them or not."""
        self._configs: set[str] = set()
        self._keepers: dict[str, set[str]] = {}
        """By executor task: the runs that keep it of an earlier run."""
        self._kept_on: set[str] = set()
        """Executor tasks that other runs kept when their run was deleted in this batch."""
        self._orphans: dict[str, ExecutorTaskRow] = {}
        """The executor tasks of deleted runs that other runs keep."""

    async def run(self) -> None:
        """Fold and compare."""
        checkpoint = await self._rows.checkpoint()
        parked = await self._rows.parked()
        self._unstorable = {row.sequence: row.reason for row in parked.values() if row.reason.startswith(UNSTORABLE)}
        if await self._readable(checkpoint):
            await self._fold_up_to(checkpoint.sequence if checkpoint is not None else 0)
            await self._compare_rest(checkpoint)

    async def _readable(self, checkpoint: Checkpoint | None) -> bool:
        if checkpoint is None:
            return True
        end = await self._log.end(self._rows.partition)
        if checkpoint.epoch != self._log.epoch:
            self._differs("checkpoints", "epoch", self._log.epoch, checkpoint.epoch)
        elif checkpoint.sequence > end:
            self._differs("checkpoints", "sequence", f"it ends at {end}", checkpoint.sequence)
        else:
            return True
        return False

    def _differs(self, table: str, column: str, log: object, database: object) -> None:
        self._report.add([RowDifference(table, (self._rows.partition,), column, log, database)])

    async def _fold_up_to(self, last: int) -> None:
        self._fold.skips = await read_skips(self._log, self._rows.partition, last)
        async for messages in read_up_to(self._log, self._rows.partition, last, limit=BATCH):
            await self._take(messages)
            self._report.commits += len(messages)
            await self._compare_final(self._fold.take_changes())

    async def _take(self, messages: list[RawMessage]) -> None:
        subjects = self._log.subjects
        items = refuse(classify(messages, self._parked_aggregates, self._fold.skips), self._unstorable, subjects)
        await self._bring_back_configs(self._fold.needs(commits_of(items)).configs)
        for item in fold_or_park(self._fold, self._not_final(items), subjects):
            if isinstance(item, Parked):
                self._parked_aggregates.add(item.aggregate)
            elif item.commit.address.kind == "run":
                self._note_keepers(item.commit)

    def _note_keepers(self, commit: DecodedCommit) -> None:
        """Note which runs keep executor tasks of others, in the order of the log.

        A restart that was appended a moment after the deletion of its earlier run may find the rows gone.
        """
        run_id = commit.address.id
        for event in commit.events:
            if isinstance(event, RunRestarted):
                for kept in event.kept:
                    if kept.executor_task_id:
                        self._keepers.setdefault(kept.executor_task_id, set()).add(run_id)
            elif isinstance(event, RunDeleted):
                run = self._fold.runs[run_id].state
                own = (key for task in run.tasks.values() for key in task.executions)
                self._kept_on.update(key for key in own if key in self._keepers)
                for key in run.kept_executions:
                    self._let_go(run_id, key)

    def _let_go(self, run_id: str, key: str) -> None:
        """Note that a deleted run keeps an executor task no longer."""
        self._keepers[key].discard(run_id)
        if self._keepers[key]:
            return
        del self._keepers[key]
        self._kept_on.discard(key)
        if self._orphans.pop(key, None) is not None:
            self._executor_tasks.discard(key)

    def _not_final(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items but commits of aggregates that were final by their rows: each of those is a difference."""
        for item in items:
            if isinstance(item, StoredCommit) and self._is_of_final(item.commit):
                address = item.commit.address
                table = "runs" if address.kind == "run" else "executor_tasks"
                self._report.add(
                    [RowDifference(table, (address.id,), "version", item.commit.version, "an earlier one")]
                )
                self._fold.after = item.position.sequence
            else:
                yield item

    def _is_of_final(self, commit: DecodedCommit) -> bool:
        """Return whether the commit continues an aggregate that was final by its row, and is compared and forgotten."""
        kind, key = commit.address.kind, commit.address.id
        if commit.version == 1 and commit.events:
            return False
        if kind == "run":
            return key in self._runs and key not in self._fold.runs
        known = key in self._executor_tasks and key not in self._orphans
        return kind == "task" and known and key not in self._fold.executor_tasks

    async def _bring_back_configs(self, hashes: Iterable[str]) -> None:
        for digest in hashes:
            address = Address(self._rows.partition, "runconfig", digest)
            stored = None if address.aggregate in self._parked_aggregates else await self._log.last(address)
            if stored is not None:
                for event in stored.commit.events:
                    if isinstance(event, RunConfigStored):
                        self._fold.configs[digest] = event.content

    async def _compare_final(self, changes: Changes) -> None:
        self._parked |= {(row.epoch, row.sequence): row for row in parked_rows(changes)}
        self._runs |= changes.runs.keys()
        self._executor_tasks |= changes.executor_tasks.keys()
        for key, changed in changes.executor_tasks.items():
            self._of_run.setdefault(changed.now.state.run_id, set()).add(key)
        await self._compare_deleted(changes)
        await self._compare_configs(changes)
        archived = {key for key in changes.runs.keys() - changes.deleted if self._fold.runs[key].state.archived}
        found = await self._rows.runs(archived) if archived else RunRows()
        final = {key for key in archived if self._is_final(key, found)}
        self._compare_runs(final, found.of(final))

    async def _compare_deleted(self, changes: Changes) -> None:
        if not changes.deleted:
            return
        expected: dict[Key, Row] = {(row.run_id,): row for row in deleted_rows(changes)}
        deleted = tables.deleted_runs
        there = await self._rows.read(DeletedRunRow, deleted, "run_id", deleted.c.run_id == any_of(changes.deleted))
        self._compare("deleted_runs", expected, there)
        self._deleted |= changes.deleted.keys()
        for run_id in changes.deleted:
            self._forget_deleted(run_id)

    def _forget_deleted(self, run_id: str) -> None:
        """Expect no rows of a deleted run, but those of its executor tasks that other runs keep."""
        del self._fold.runs[run_id]
        self._runs.discard(run_id)
        for key in self._of_run.pop(run_id, ()):
            task = self._fold.executor_tasks.pop(key)
            if key in self._kept_on:
                self._orphans[key] = executor_task_row(task.state, task.head, self._rows.partition)
            else:
                self._executor_tasks.discard(key)
            self._kept_on.discard(key)

    async def _compare_configs(self, changes: Changes) -> None:
        if not changes.configs:
            return
        partition = self._rows.partition
        expected: dict[Key, Row] = {
            (key,): run_config_row(key, config, partition) for key, config in changes.configs.items()
        }
        configs = tables.run_configs
        there = await self._rows.read(RunConfigRow, configs, "hash", configs.c.hash == any_of(changes.configs))
        self._compare("run_configs", expected, there)
        self._configs |= changes.configs.keys()
        for key in list(self._fold.configs)[: max(0, len(self._fold.configs) - MAX_CONFIGS)]:
            del self._fold.configs[key]

    def _is_final(self, run_id: str, found: RunRows) -> bool:
        """Return whether the rows have the heads of the fold: the run has no more commits before the checkpoint."""
        row = found.runs.get((run_id,))
        executed = {row.id: row.head for row in found.executor_tasks.values() if row.run_id == run_id}
        folded = {key: self._fold.executor_tasks[key].head for key in self._of_run.get(run_id, ())}
        return row is not None and row.head == self._fold.runs[run_id].head and executed == folded

    def _compare_runs(self, run_ids: Iterable[str], found: RunRows) -> None:
        """Compare these runs with their tasks and executor tasks, and forget them."""
        expected = RunRows()
        partition = self._rows.partition
        for run_id in run_ids:
            tasks = [self._fold.executor_tasks.pop(key) for key in self._of_run.pop(run_id, ())]
            tracked = self._fold.runs.pop(run_id)
            row = run_row(tracked.state, tracked.head, partition)
            if not tracked.state.numbered and (live := found.runs.get((run_id,))) is not None:
                # Proposed, not recorded: a `RunCreated` that was parked gets another proposal than in the log's order.
                row = row._replace(counter=live.counter, sequence=live.sequence)
            expected.runs[run_id,] = row
            for task in tracked.state.tasks.values():
                expected.run_tasks[run_id, task.name] = run_task_row(run_id, task)
            for failure in task_failure_rows(tracked.state, partition):
                expected.task_failures[run_id, failure.task] = failure
            for executed in tasks:
                expected.executor_tasks[executed.state.id,] = executor_task_row(
                    executed.state, executed.head, partition
                )
        for table, rows in found.tables().items():
            self._compare(table, expected.tables()[table], rows)

    def _compare(self, table: str, log: Mapping[Key, Row], database: Mapping[Key, Row]) -> None:
        self._report.rows += len(log)
        self._report.add(compare(table, log, database))

    async def _compare_rest(self, checkpoint: Checkpoint | None) -> None:
        """Compare active runs, executors, counters and parked commits, and look for unexpected rows."""
        remaining = list(self._fold.runs)
        for start in range(0, len(remaining), BATCH):
            piece = remaining[start : start + BATCH]
            self._compare_runs(piece, await self._rows.runs(piece))
        ids = list(self._orphans)
        for start in range(0, len(ids), BATCH):
            orphans: dict[Key, Row] = {(key,): self._orphans[key] for key in ids[start : start + BATCH]}
            self._compare("executor_tasks", orphans, await self._rows.executor_tasks(ids[start : start + BATCH]))
        partition = self._rows.partition
        executors: dict[Key, Row] = {
            (key,): executor_row(one.state, one.head, partition) for key, one in self._fold.executors.items()
        }
        counters: dict[Key, Row] = {
            (root,): CounterRow(partition, root, last) for root, last in self._fold.counters.items()
        }
        self._compare("executors", executors, await self._rows.read(ExecutorRow, tables.executors, "id"))
        self._compare("counters", counters, await self._rows.read(CounterRow, tables.counters, "root"))
        self._compare("parked", _without_reason(self._parked), _without_reason(await self._rows.parked()))
        if checkpoint is not None and checkpoint.run_sequence != self._fold.run_sequence:
            self._differs("checkpoints", "run_sequence", self._fold.run_sequence, checkpoint.run_sequence)
        await self._find_unknown()

    async def _find_unknown(self) -> None:
        for table, column, known in (
            (tables.runs, "id", self._runs),
            (tables.executor_tasks, "id", self._executor_tasks | self._keepers.keys()),
            (tables.run_configs, "hash", self._configs),
            (tables.task_failures, "run_id", self._runs),
            (tables.deleted_runs, "run_id", self._deleted),
        ):
            unknown = [(key,) async for key in self._rows.ids(table, column) if key not in known]
            self._report.add(unexpected(table.name, unknown))
        self._report.add(unexpected("run_tasks", await self._rows.orphans()))


def _without_reason(rows: Mapping[Key, ParkedRow]) -> dict[Key, Row]:
    """Return parked rows without their reason, which depends on how batches were cut for commits behind another."""
    return {key: row._replace(reason="") for key, row in rows.items()}


FSCK_SECONDS = 4 * 3600.0


async def fsck(
    database: Database, log: Log, partitions: Sequence[int] | None = None, report: FsckFindings | None = None
) -> FsckFindings:
    """Compare the projection with the log, in all partitions or in these.

    Ignores commits behind a partition's checkpoint. A given `report` is filled meanwhile. Raises InternalError when log
    or database fail.
    """
    report = FsckFindings() if report is None else report
    for partition in range(log.partitions) if partitions is None else partitions:
        async with database.snapshot(timeout=FSCK_SECONDS) as transaction:
            rows = PartitionRows(transaction, partition)
            await PartitionCheck(rows, log, report).run()
    return report
