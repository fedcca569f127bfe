"""The tables of the projection, without a schema: the connection's search_path says in which one they are.

Every row is derived from the log and can be made again. Each table has one writer (the scheduler of a
partition writes the rows of its partition), and every row of an aggregate carries the `version` it shows and
the `position` (sequence in its partition's stream) of the commit that made it so.

Enumerations are text with a CHECK constraint: another value is a constraint replaced online (NOT VALID, then
VALIDATE), and arrays of text need no look-up of types when a connection prepares a statement. Free-form values
are `json`, not `jsonb`: it keeps what was written byte by byte, so that rows compare exactly with the log, and
it is not parsed again on every update. Names and groups have the collation "C": a group is looked up by prefix as
a range, whatever the database's locale.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    cast,
    func,
    text,
)
from sqlalchemy.types import UserDefinedType

from runstream.domain.executor import ExecutorState
from runstream.domain.run import RunPhase, RunTaskStatus
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run import RunResult

PROJECTION = "runs"
"""The name of the projection of the runs service in `checkpoints` and `parked`."""

metadata = MetaData()


class JsonText(UserDefinedType[str]):
    """A `json` column whose value is its text: `runstream.database.rows` alone knows what is in it."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """How the type is called in SQL."""
        return "JSON"

    def column_expression(self, colexpr: ColumnElement[str]) -> ColumnElement[str]:
        """How it is selected: as text, which no driver decodes."""
        return cast(colexpr, Text)


_TIME = DateTime(timezone=True)
_NAME = Text(collation="C")
_ROOM = {"fillfactor": 75}
"""Room in each page for the next version of a row, so that an update touches no index."""


def _one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _tracked() -> tuple[Column[int], ...]:
    """What the row of every aggregate carries: its partition, its version, and the sequence of its last commit."""
    return (
        Column("partition", SmallInteger, nullable=False),
        Column("version", Integer, nullable=False),
        Column("position", BigInteger, nullable=False),
    )


epochs = Table(
    "epochs",
    metadata,
    Column("service", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("current", Boolean, nullable=False),
    Column("partitions", SmallInteger, nullable=False),
    Column("created_at", _TIME, nullable=False, server_default=func.now()),
    Column("state", Text, nullable=False, server_default="ready"),
    Column("origin", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("service", "epoch"),
    CheckConstraint(
        "state IN ('loading', 'ready', 'deleted') AND (state = 'ready' OR NOT current)", name="epochs_state_known"
    ),
    Index("epochs_current", "service", unique=True, postgresql_where=text("current")),
)
"""Each epoch that there ever was: its number is never given to another one.

`state` is `loading` while an import fills its streams, which nobody reads; `ready` when they are whole; `deleted` when
they are gone. `origin` says for people where its commits came from; empty for those that were made here.
"""

exports = Table(
    "exports",
    metadata,
    Column("service", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("created", _TIME, nullable=False),
    PrimaryKeyConstraint("service", "namespace"),
)
"""When each namespace was exported last."""

deployment = Table(
    "deployment",
    metadata,
    Column("singular", Boolean, primary_key=True, server_default=text("true")),
    Column("id", Text, nullable=False),
    CheckConstraint("singular", name="deployment_is_one"),
)
"""The id of the deployment, as NATS and the archive have it too; one row."""

archives = Table(
    "archives",
    metadata,
    Column("service", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),
    PrimaryKeyConstraint("service", "epoch"),
)
"""How often the archive of an epoch has changed hands: only the last datamanager may change it."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("projection", Text, nullable=False),
    Column("partition", SmallInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("run_sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("projection", "partition"),
    postgresql_with={"fillfactor": 20},
)
"""How far each partition is projected; `run_sequence` is the highest that a `RunNumbered` of it records."""

counters = Table(
    "counters",
    metadata,
    Column("partition", SmallInteger, nullable=False),
    Column("root", _NAME, nullable=False),
    Column("last", BigInteger, nullable=False),
    PrimaryKeyConstraint("partition", "root"),
    postgresql_with=_ROOM,
)
"""The last run number of each group root."""

run_configs = Table(
    "run_configs",
    metadata,
    Column("hash", _NAME, nullable=False),
    Column("partition", SmallInteger, nullable=False),
    Column("content", JsonText(), nullable=False),
    PrimaryKeyConstraint("partition", "hash"),
)

INDEXED_CHARACTERS = 100
"""How much of a run's name its index has."""

runs = Table(
    "runs",
    metadata,
    Column("id", _NAME, primary_key=True),
    *_tracked(),
    Column("sequence", BigInteger, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("numbered", Boolean, nullable=False),
    Column("counter_group", _NAME, nullable=False),
    Column("group", _NAME, nullable=False),
    Column("name", Text, nullable=False),
    Column("run_config", _NAME, nullable=False),
    Column("annotations", JsonText(), nullable=False),
    Column("setup_errors", JsonText(), nullable=False),
    Column("phase", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("stop", Boolean, nullable=False),
    Column("timedout", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("request", Text, nullable=False),
    Column("restart", JsonText(), nullable=False),
    Column("paused_at", _TIME),
    Column("paused_for", BigInteger, nullable=False),
    Column("enqueue_time", _TIME, nullable=False),
    Column("start_time", _TIME),
    Column("end_time", _TIME),
    Column("archived", Boolean, nullable=False),
    _one_of("phase", RunPhase),
    _one_of("result", RunResult),
    Index("runs_by_sequence", "sequence"),
    Index("runs_by_group", "group", "sequence"),
    Index("runs_by_counter", "counter_group", "counter"),
    # Names that older versions took may be longer than an entry of an index can be.
    Index("runs_by_name", text(f"substr(name, 1, {INDEXED_CHARACTERS})"), "sequence"),
    Index("runs_active", "partition", postgresql_where=text("NOT archived")),
    postgresql_with=_ROOM,
)

run_tasks = Table(
    "run_tasks",
    metadata,
    Column("run_id", _NAME, nullable=False),
    Column("name", _NAME, nullable=False),
    Column("id", _NAME, nullable=False),
    Column("status", Text, nullable=False),
    Column("skip", Boolean, nullable=False),
    Column("archive_steps", JsonText(), nullable=False),
    Column("waiting_approval", Boolean, nullable=False),
    Column("approved", Boolean, nullable=False),
    Column("approvers", JsonText(), nullable=False),
    Column("approved_at", _TIME),
    Column("annotations", JsonText(), nullable=False),
    Column("kept", Boolean, nullable=False),
    Column("timedout", Boolean, nullable=False),
    Column("failure", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("attempts", JsonText(), nullable=False),
    Column("not_before", _TIME),
    Column("executor_task_id", _NAME, nullable=False),
    Column("executor_task_open", Boolean, nullable=False),
    Column("withdrawn", _NAME, nullable=False),
    Column("archives_pending", Boolean, nullable=False),
    Column("start_time", _TIME),
    Column("end_time", _TIME),
    PrimaryKeyConstraint("run_id", "name"),
    Index("run_tasks_waiting", "run_id", postgresql_where=text("waiting_approval")),
    _one_of("status", RunTaskStatus),
    postgresql_with=_ROOM,
)
"""A task is of its run: it has no version of its own."""

executor_tasks = Table(
    "executor_tasks",
    metadata,
    Column("id", _NAME, primary_key=True),
    *_tracked(),
    Column("executor_id", _NAME, nullable=False),
    Column("run_id", _NAME, nullable=False),
    Column("run_task_id", _NAME, nullable=False),
    Column("task", _NAME, nullable=False),
    Column("run_config", _NAME, nullable=False),
    Column("group", _NAME, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("timeout", BigInteger, nullable=False),
    Column("setup_step", JsonText(), nullable=False),
    Column("steps", JsonText(), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("workspaces", JsonText(), nullable=False),
    Column("phase", Text, nullable=False),
    Column("stop", Boolean, nullable=False),
    Column("timedout", Boolean, nullable=False),
    Column("interrupted", Boolean, nullable=False),
    Column("lost", Boolean, nullable=False),
    Column("fail_error", Text, nullable=False),
    Column("start_time", _TIME),
    Column("end_time", _TIME),
    _one_of("phase", ExecutorTaskPhase),
    Index("executor_tasks_by_run", "run_id"),
    postgresql_with=_ROOM,
)

executors = Table(
    "executors",
    metadata,
    Column("id", _NAME, primary_key=True),
    *_tracked(),
    Column("registration", JsonText(), nullable=False),
    Column("state", Text, nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("last_seen", _TIME),
    _one_of("state", ExecutorState),
    postgresql_with=_ROOM,
)

parked = Table(
    "parked",
    metadata,
    Column("projection", Text, nullable=False),
    Column("partition", SmallInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("subject", Text, nullable=False),
    Column("aggregate", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", _TIME, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("projection", "partition", "epoch", "sequence"),
)
"""Commits that could not be read or applied, by position: after a fix they are read again from the log."""
