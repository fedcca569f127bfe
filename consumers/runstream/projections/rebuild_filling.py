"""Filling one partition: its rows, built from its commits in an empty schema, as fast as COPY accepts them.

A run is written once it is archived, and dropped from memory once it is written, so that memory holds only what is
active at one time. A run that changes after it was written (a log that an executor stored late) is loaded and replaced.
The last write adds all other rows and the checkpoint: from then on the partition is a projection like any other, and
can be filled further. No transaction waits for the disk, because the log has everything that it writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import structlog

from runstream import tables
from runstream.commits import StoredCommit
from runstream.database.database import Database
from runstream.database.failures import UNSTORABLE, UnstorableError
from runstream.database.rows import (
    executor_row,
    executor_task_row,
    run_config_row,
    run_row,
    run_task_row,
    task_failure_rows,
)
from runstream.database.runs import get_positions
from runstream.database.transaction import WriterTransaction
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import RunState
from runstream.errors import InternalError
from runstream.feed import classify, commits_of, fold_or_park, refuse
from runstream.log.port import RawMessage
from runstream.projections.fold import Changes, Parked, PartitionFold, Tracked
from runstream.projections.parked import ParkedCommit, list_parked
from runstream.projections.rebuild_processes import OnDone
from runstream.projections.store import (
    UPSERTS,
    as_json,
    delete_runs,
    deleted_rows,
    load_needed,
    load_partition,
    parked_rows,
    storable,
)
from runstream.skips import Skips, skipped_aggregate
from runstream.subjects import Subjects
from runstream.tables import CounterRow, ExecutorTaskRow, Row, RunConfigRow, RunRow, RunTaskRow, TaskFailureRow

WRITE_SECONDS = 600.0
_MAX_BIGINT = 2**63 - 1

_COPIED = (
    ("run_configs", RunConfigRow._fields),
    ("runs", RunRow._fields),
    ("run_tasks", RunTaskRow._fields),
    ("task_failures", TaskFailureRow._fields),
    ("executor_tasks", ExecutorTaskRow._fields),
)
_CHECKPOINT = """
INSERT INTO checkpoints (projection, partition, epoch, sequence, run_sequence) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (projection, partition) DO UPDATE SET
    epoch = excluded.epoch, sequence = excluded.sequence, run_sequence = excluded.run_sequence
"""
_CLEAR = (
    "DELETE FROM run_tasks USING runs WHERE runs.id = run_tasks.run_id AND runs.partition = $1",
    *(
        f"DELETE FROM {table} WHERE partition = $1"  # noqa: S608  names of runstream.tables
        for table in (
            *("runs", "task_failures", "deleted_runs", "executor_tasks", "executors", "run_configs", "counters"),
            *("parked", "checkpoints"),
        )
    ),
)


@dataclass(frozen=True, slots=True)
class RunWithTasks:
    """A run with its tasks and executor tasks."""

    run: Tracked[RunState]
    tasks: tuple[Tracked[ExecutorTask], ...]


@dataclass(slots=True)
class PendingRows:
    """The rows of one partition that are not written yet."""

    partition: int
    copied: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table, _ in _COPIED})
    replaced: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table in UPSERTS})
    deleted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Runs whose rows are deleted after the others are written, with the executor tasks that they keep."""

    def add_run(self, whole: RunWithTasks, *, again: bool) -> None:
        """Add the rows of a run; `again` if an earlier state of it is already written."""
        into = self.replaced if again else self.copied
        run = whole.run.state
        into["runs"].append(run_row(run, whole.run.head, self.partition))
        into["run_tasks"].extend(run_task_row(run.id, task) for task in run.tasks.values())
        into["task_failures"].extend(task_failure_rows(run, self.partition))
        into["executor_tasks"].extend(executor_task_row(t.state, t.head, self.partition) for t in whole.tasks)

    async def write(self, database: Database, checkpoint: tuple[int, int, int] | None = None) -> None:
        """Write all rows, with the checkpoint (epoch, sequence, run sequence) if there is one; all or nothing.

        Raises UnstorableError for a value that Postgres cannot hold, InternalError when the database fails.
        """

        async def work(writing: WriterTransaction) -> None:
            connection = writing.connection
            for table, columns in _COPIED:
                if self.copied[table]:
                    await connection.copy_records_to_table(table, records=self.copied[table], columns=columns)
            for table, statement in UPSERTS.items():
                if self.replaced[table]:
                    with storable():
                        rows = as_json(self.replaced[table])
                    await connection.execute(statement, rows)
            ids = [*self.deleted]
            for begin in range(0, len(ids), PIECE_RUNS):
                await delete_runs(connection, {key: self.deleted[key] for key in ids[begin : begin + PIECE_RUNS]})
            if checkpoint is not None:
                await connection.execute(_CHECKPOINT, tables.PROJECTION, self.partition, *checkpoint)

        await database.write(work, timeout=WRITE_SECONDS)

    def unstorable(self) -> str:
        """Return why Postgres cannot hold one of these rows; empty if it can hold all."""
        rows: Iterable[Row] = (row for table in (*self.copied.values(), *self.replaced.values()) for row in table)
        for row in rows:
            for column, value in zip(row._fields, row, strict=True):
                if isinstance(value, str) and "\0" in value:
                    return f"{column} has a NUL"
                if isinstance(value, int) and abs(value) > _MAX_BIGINT:
                    return f"{column} is out of range"
        return ""


async def clear_partition(database: Database, partition: int) -> None:
    """Delete all rows of a partition."""

    async def work(writing: WriterTransaction) -> None:
        for statement in _CLEAR:
            await writing.connection.execute(statement, partition)

    await database.write(work, timeout=WRITE_SECONDS)


PIECE_RUNS = 2000
"""Number of runs that are written together."""
PIECE_CONFIG_BYTES = 4 << 20
YIELD_EVERY = 200
"""Number of commits folded without a pause; then messages and rows are transferred."""
KEPT_CONFIG_BYTES = 8 << 20
"""Number of run configs cached as JSON; others are loaded again when needed."""
log = structlog.get_logger()

Source = Callable[[int], AsyncIterator[Sequence[RawMessage]]]
"""Opens the partition after a sequence, up to the end of the filling."""


@dataclass(frozen=True, slots=True)
class Filled:
    """The contents of a filled partition."""

    partition: int
    sequence: int
    """The last sequence."""
    parked: int
    """Number of commits that could not be read or applied."""


class _CannotBeStoredError(Exception):
    """The commit at this sequence has a value that Postgres cannot hold."""

    def __init__(self, sequence: int, reason: str) -> None:
        super().__init__(reason)
        self.sequence, self.reason = sequence, reason


class _SkippedLateError(Exception):
    """A parked commit of the existing rows for which a later commit decides that it is skipped."""


async def fill_partition(
    database: Database, subjects: Subjects, partition: int, source: Source, tell: OnDone, skips: Skips
) -> Filled:
    """Fill a partition, from its checkpoint if it has one, with all commits of the source.

    `skips` are all skip decisions of the source. A commit with a value that Postgres cannot hold is parked, as by a
    worker: the partition is filled again without it. Raises InternalError when log or database fail.
    """
    refused: dict[int, str] = {}
    careful = False
    while True:
        async with database.snapshot() as transaction:
            begun = partition in await get_positions(transaction)
            parked = await list_parked(transaction, partition, subjects.epoch)
        new = PartitionFold(partition, subjects.epoch)
        fold = await load_partition(database, partition, subjects.epoch) if begun else new
        fold.skips = skips
        filling = Filling(database, subjects, fold, parked, refused, careful=careful)
        try:
            async for messages in source(fold.after):
                for begin in range(0, len(messages), YIELD_EVERY):
                    await filling.take(messages[begin : begin + YIELD_EVERY])
                    await asyncio.sleep(0)
                tell(len(messages))
            return await filling.finish()
        except _SkippedLateError:
            log.info("a partition is filled again: a commit is skipped", action="rebuild_skipped", partition=partition)
        except _CannotBeStoredError as found:
            refused[found.sequence] = found.reason
            careful = False
        except UnstorableError as error:
            if careful:
                raise InternalError(
                    f"partition {partition} cannot be stored: {error.message}", code="rebuildFailed"
                ) from error
            careful = True
            log.warning("filling a partition again commit by commit", action="rebuild_careful", partition=partition)
        finally:
            await filling.close()
        await clear_partition(database, partition)


@dataclass(slots=True)
class _Piece:
    """Runs to write together, in their state when their rows were made."""

    rows: PendingRows
    wholes: dict[str, RunWithTasks] = field(default_factory=dict)


@dataclass(eq=False)
class Filling:
    """A fold of one partition's messages, in order, into rows. `close` it in any case."""

    database: Database
    subjects: Subjects
    fold: PartitionFold
    """The state of the existing rows."""
    parked: Sequence[ParkedCommit]
    """Their parked commits."""
    refused: Mapping[int, str]
    """The sequences of commits to park, with the reason."""
    careful: bool
    """True to check each commit for more of them."""

    def __post_init__(self) -> None:
        self._parked_before = frozenset(one.aggregate for one in self.parked)
        self._parked_aggregates = set(self._parked_before)
        self._parked = len(self.parked)
        self._rows = PendingRows(self.fold.partition)
        self._changed: set[str] = set()
        """Runs whose current state is not written."""
        self._final: dict[str, None] = {}
        """Archived runs among them."""
        self._again = set(self.fold.runs)
        """Runs in memory that already have rows."""
        self._config_bytes: dict[str, int] = {}
        """Number of bytes of the run configs in memory, as JSON."""
        self._waiting_config_bytes = 0
        self._deleted: dict[str, tuple[str, ...]] = {}
        """Deleted runs. Their rows go last, when those of all restarts that keep their tasks are written."""
        self._writing: asyncio.Task[None] | None = None

    async def take(self, messages: Sequence[RawMessage]) -> None:
        """Fold further messages, while final runs are written."""
        items = classify(messages, self._parked_aggregates, self.fold.skips)
        items = refuse(items, self.refused, self.subjects)
        commits = commits_of(items)
        if self._parked_before:
            addresses = (stored.commit.address for stored in commits if stored.commit.address.kind == "skip")
            if any(skipped_aggregate(self.subjects, address) in self._parked_before for address in addresses):
                raise _SkippedLateError
        await self._bring_back(commits)
        # No await until all is folded: a finished write would drop runs that these commits need.
        for item in fold_or_park(self.fold, items, self.subjects):
            if isinstance(item, Parked):
                self._parked_aggregates.add(item.aggregate)
            elif self.careful:
                self._require_storable(item.position.sequence)
        self._collect(self.fold.take_changes())
        if len(self._final) >= PIECE_RUNS or self._waiting_config_bytes > PIECE_CONFIG_BYTES:
            await self._begin_piece()

    async def finish(self) -> Filled:
        """Write the remaining rows and the checkpoint."""
        await self._written()
        while self._changed:
            await self._write(self._piece([*islice(self._changed, PIECE_RUNS)]))
        fold, rest = self.fold, self._rows
        partition = fold.partition
        rows = rest.replaced
        rows["executor_tasks"] += [executor_task_row(t.state, t.head, partition) for t in self._tasks_without_run()]
        rows["executors"] += [executor_row(one.state, one.head, partition) for one in fold.executors.values()]
        rows["counters"] += [CounterRow(partition, root, last) for root, last in fold.counters.items()]
        rest.deleted = self._deleted
        await rest.write(self.database, (fold.epoch, fold.after, fold.run_sequence))
        return Filled(partition, fold.after, self._parked)

    async def close(self) -> None:
        """Cancel the current write."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
            await asyncio.wait({writing})
            if not writing.cancelled():
                writing.exception()  # An error that ended the filling was raised already; any other no longer matters.

    async def _bring_back(self, commits: Sequence[StoredCommit]) -> None:
        """Load the aggregates that these commits touch and that only the rows have."""
        fold = self.fold
        needs = fold.needs(commits)
        if not needs:
            return
        await self._written()
        needs = fold.needs(commits)
        waiting = needs.configs & {str(row[0]) for row in self._rows.copied["run_configs"]}
        if waiting:
            await self._begin_piece()
            await self._written()
        loaded = await load_needed(self.database, fold.partition, needs)
        self._again.update(run_id for run_id in loaded.runs if run_id not in fold.runs)
        fold.runs.update({key: run for key, run in loaded.runs.items() if key not in fold.runs})
        fold.executor_tasks.update({k: t for k, t in loaded.executor_tasks.items() if k not in fold.executor_tasks})
        fold.configs.update(loaded.configs)

    def _collect(self, changes: Changes) -> None:
        partition = self.fold.partition
        for key, config in changes.configs.items():
            row = run_config_row(key, config, partition)
            self._rows.copied["run_configs"].append(row)
            self._config_bytes[key] = len(row.content)
            self._waiting_config_bytes += len(row.content)
        self._changed.update(changes.runs)
        self._deleted |= changes.deleted
        self._rows.replaced["deleted_runs"] += deleted_rows(changes)
        self._final.update((run_id, None) for run_id in changes.runs if self.fold.runs[run_id].state.archived)
        self._rows.replaced["parked"] += parked_rows(changes)
        self._parked += len(changes.parked)

    async def _begin_piece(self) -> None:
        """Start to write the final runs, after the previous write has ended."""
        await self._written()
        piece = self._piece(list(self._final))
        self._writing = asyncio.create_task(self._write(piece))

    def _piece(self, run_ids: Sequence[str]) -> _Piece:
        piece, self._rows = _Piece(self._rows), PendingRows(self.fold.partition)
        self._waiting_config_bytes = 0
        self._changed.difference_update(run_ids)
        for run_id in run_ids:
            self._final.pop(run_id, None)
            whole = piece.wholes[run_id] = self._whole(run_id)
            piece.rows.add_run(whole, again=run_id in self._again)
        return piece

    async def _write(self, piece: _Piece) -> None:
        await piece.rows.write(self.database)
        for run_id, whole in piece.wholes.items():
            if whole.run.state.archived and _same(self._whole(run_id), whole):
                self._forget(run_id, whole)
            else:
                self._again.add(run_id)
        self._forget_configs({str(row[0]) for row in self._rows.copied["run_configs"]})

    async def _written(self) -> None:
        """Wait for the current write, and raise its error."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    def _whole(self, run_id: str) -> RunWithTasks:
        tracked = self.fold.runs[run_id]
        ids = (key for task in tracked.state.tasks.values() for key in task.executions)
        return RunWithTasks(tracked, tuple(self.fold.executor_tasks[key] for key in ids))

    def _forget(self, run_id: str, whole: RunWithTasks) -> None:
        del self.fold.runs[run_id]
        self._again.discard(run_id)
        for task in whole.tasks:
            self.fold.executor_tasks.pop(task.state.id, None)

    def _forget_configs(self, waiting: set[str]) -> None:
        kept = sum(self._config_bytes.values())
        for key in [key for key in self.fold.configs if key not in waiting]:
            if kept <= KEPT_CONFIG_BYTES:
                return
            del self.fold.configs[key]
            kept -= self._config_bytes.pop(key, 0)

    def _tasks_without_run(self) -> list[Tracked[ExecutorTask]]:
        """Return the executor tasks that no run names: a second one of a task, which a scheduler never assigns."""
        tasks = (task for run in self.fold.runs.values() for task in run.state.tasks.values())
        named = {key for task in tasks for key in task.executions}
        return [task for key, task in self.fold.executor_tasks.items() if key not in named]

    def _require_storable(self, sequence: int) -> None:
        """Raise _CannotBeStoredError if the last applied commit made a row that Postgres cannot hold."""
        changes = self.fold.changes
        rows = PendingRows(self.fold.partition)
        for run_id in changes.runs:
            rows.add_run(self._whole(run_id), again=False)
        rows.replaced["executors"] = [executor_row(c.now.state, c.now.head, 0) for c in changes.executors.values()]
        rows.replaced["counters"] = [CounterRow(0, root, last) for root, last in changes.counters.items()]
        if what := rows.unstorable():
            raise _CannotBeStoredError(sequence, f"{UNSTORABLE}: {what}")


def _same(now: RunWithTasks, then: RunWithTasks) -> bool:
    """Return whether the run is unchanged: a fold makes new objects for what it changes."""
    return (
        now.run is then.run
        and len(now.tasks) == len(then.tasks)
        and all(one is other for one, other in zip(now.tasks, then.tasks, strict=True))
    )
