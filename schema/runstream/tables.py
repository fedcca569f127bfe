"""The tables of the projection, without a schema: they are in that of the connection's search_path.

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
from datetime import datetime
from types import NoneType
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

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
from sqlalchemy.types import TypeEngine, UserDefinedType

from runstream.commits import Head
from runstream.domain.executor import ExecutorState
from runstream.domain.run import RunTaskStatus
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.run_states import RunPhase, RunResult
from runstream.subjects import CONFIG_KINDS

PROJECTION = "runs"
"""The name of the projection of the runs service in `checkpoints` and `parked`."""

metadata = MetaData()


class JsonText(UserDefinedType[str]):
    """A `json` column whose value is its text; only `runstream.database.rows` parses it."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Return the name of the type in SQL."""
        return "JSON"

    def column_expression(self, colexpr: ColumnElement[str]) -> ColumnElement[str]:
        """Select the column as text, so that no driver decodes it."""
        return cast(colexpr, Text)


_TIME = DateTime(timezone=True)
_NAME = Text(collation="C")
_ROOM = {"fillfactor": 75}
"""Free space in each page for the next version of a row, so that an update touches no index."""


def _one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


Name = Annotated[str, _NAME]
"""A name, a group or an id."""
Json = Annotated[str, JsonText()]
"""The text of a free-form value."""
Small = Annotated[int, SmallInteger()]
Big = Annotated[int, BigInteger()]
_TYPES: dict[object, TypeEngine[Any]] = {str: Text(), int: Integer(), bool: Boolean(), datetime: _TIME}


def _columns(row: type[Row]) -> list[Column[Any]]:
    """Return the columns of a table, in the order of its row type; those that can be None are nullable."""
    columns = []
    for name, kind in get_type_hints(row, include_extras=True).items():
        plain, *others = get_args(kind) or (kind,)
        declared = next((one for one in others if isinstance(one, TypeEngine)), None)
        columns.append(Column(name, declared or _TYPES[plain], nullable=NoneType in others))
    return columns


class RunRow(NamedTuple):
    """A row of `runs`."""

    id: Name
    partition: Small
    version: int
    position: Big
    sequence: Big
    counter: Big
    numbered: bool
    counter_group: Name
    group: Name
    name: str
    run_config: Name
    annotations: Json
    setup_errors: Json
    phase: str
    result: str
    stop: bool
    timedout: bool
    reason: str
    priority: int
    request: str
    restart: Json
    paused_at: datetime | None
    paused_for: Big
    enqueue_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    archived: bool
    logs_removed_at: datetime | None
    archives_removed_at: datetime | None
    holds_logs: bool
    holds_archives: bool

    @property
    def head(self) -> Head:
        """The head of the run."""
        return Head(self.version, self.position)


class RunTaskRow(NamedTuple):
    """A row of `run_tasks`."""

    run_id: Name
    name: Name
    id: Name
    status: str
    skip: bool
    archive_steps: Json
    waiting_approval: bool
    approved: bool
    approvers: Json
    approved_at: datetime | None
    annotations: Json
    kept: bool
    timedout: bool
    failure: str
    attempt: int
    attempts: Json
    not_before: datetime | None
    executor_task_id: Name
    executor_task_open: bool
    withdrawn: Name
    archives_pending: bool
    start_time: datetime | None
    end_time: datetime | None


class TaskFailureRow(NamedTuple):
    """A row of `task_failures`."""

    run_id: Name
    task: Name
    partition: Small
    counter_group: Name
    group: Name
    name: str
    """Of the run."""
    run_config: Name
    commit_sha: str
    """Of the run's annotations; empty for none."""
    sequence: Big
    """Of the run."""
    failures: int
    """Number of failed attempts, without those whose executor was lost."""
    passed: bool
    """Whether a later attempt of the run has succeeded."""
    end_time: datetime | None


class DeletedRunRow(NamedTuple):
    """A row of `deleted_runs`."""

    run_id: Name
    partition: Small
    counter_group: Name
    counter: Big
    group: Name


class ExecutorTaskRow(NamedTuple):
    """A row of `executor_tasks`."""

    id: Name
    partition: Small
    version: int
    position: Big
    executor_id: Name
    run_id: Name
    run_task_id: Name
    task: Name
    run_config: Name
    group: Name
    counter: Big
    timeout: Big
    setup_step: Json
    steps: Json
    attempt: int
    workspaces: Json
    phase: str
    stop: bool
    timedout: bool
    interrupted: bool
    lost: bool
    fail_error: str
    start_time: datetime | None
    end_time: datetime | None

    @property
    def head(self) -> Head:
        """The head of the executor task."""
        return Head(self.version, self.position)


class ExecutorRow(NamedTuple):
    """A row of `executors`."""

    id: Name
    partition: Small
    version: int
    position: Big
    registration: Json
    state: str
    draining: bool
    last_seen: datetime | None

    @property
    def head(self) -> Head:
        """The head of the executor."""
        return Head(self.version, self.position)


class RunConfigRow(NamedTuple):
    """A row of `run_configs`."""

    hash: Name
    partition: Small
    content: Json


class CounterRow(NamedTuple):
    """A row of `counters`."""

    partition: Small
    root: Name
    last: Big


class ConfigRow(NamedTuple):
    """A row of `config`: a user, an organization, a project group, a project, a secret …"""

    kind: Name
    id: Name
    version: int
    position: Big
    name: Name
    parent: Name
    content: Json
    """All of the thing, with its times; texts that are secret are sealed."""


class ParkedRow(NamedTuple):
    """A row of `parked`, without the time at which it was written."""

    projection: str
    partition: Small
    epoch: int
    sequence: Big
    subject: str
    aggregate: str
    reason: str


RowOfRun = RunRow | RunTaskRow | TaskFailureRow | DeletedRunRow | ExecutorTaskRow
Row = RowOfRun | ExecutorRow | RunConfigRow | CounterRow | ConfigRow | ParkedRow

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
"""All epochs that ever existed; their numbers are never reused.

`state` is `loading` while an import fills its
streams, which no process reads yet; `ready` when they are complete; `deleted` when they are gone. `origin` describes
the source of its commits for people; empty for those appended here.
"""

exports = Table(
    "exports",
    metadata,
    Column("service", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("created", _TIME, nullable=False),
    PrimaryKeyConstraint("service", "namespace"),
)
"""The last export of each namespace."""

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
"""The generation of each epoch's archive, which counts its datamanagers: only the last one may change the archive."""

removals = Table(
    "removals",
    metadata,
    Column("service", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("partition", SmallInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("service", "epoch", "partition"),
)
"""The cleaner's mark in each partition: the objects that commits up to it release are removed."""

retention = Table(
    "retention",
    metadata,
    Column("singular", Boolean, primary_key=True, server_default=text("true")),
    Column("since", _TIME, nullable=False, server_default=func.now()),
    CheckConstraint("singular", name="retention_is_one"),
)
"""Since when this database knows retention: ages count from then at the earliest. One row, made by the migration."""

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
"""The checkpoint of each partition; `run_sequence` is the highest sequence that a `RunNumbered` of it records."""

counters = Table(
    "counters",
    metadata,
    *_columns(CounterRow),
    PrimaryKeyConstraint("partition", "root"),
    postgresql_with=_ROOM,
)
"""The last run number of each group root."""

run_configs = Table(
    "run_configs",
    metadata,
    *_columns(RunConfigRow),
    PrimaryKeyConstraint("partition", "hash"),
)

ENDED_AT = text("coalesce(end_time, enqueue_time)")
"""The end of an archived run; one with setup errors ended when it was created."""
INDEXED_CHARACTERS = 100
"""Number of characters of a run's name in its index."""
INDEXED_NAME = f"substr(name, 1, {INDEXED_CHARACTERS})"
"""A run's name in its index: names accepted by older versions may be longer than an index entry can be."""
INDEXED_DIGITS = 7
"""Number of digits of a commit's hash in its index."""
COMMIT = f"substr(annotations ->> 'commit_sha', 1, {INDEXED_DIGITS})"
"""The beginning of the hash of a run's commit."""
HAS_COMMIT = r"""strpos(annotations::text, '"commit_sha"') > 0 AND strpos(annotations::text, '\u0000') = 0"""
"""True for a run with a commit; NUL, which older logs can hold in a JSON text, is none of a text in Postgres."""
NOT_SUCCESS = "phase <> 'finished' OR result <> 'success'"
"""True for all runs but the successful ones, which are nearly all of them."""

runs = Table(
    "runs",
    metadata,
    *_columns(RunRow),
    PrimaryKeyConstraint("id"),
    _one_of("phase", RunPhase),
    _one_of("result", RunResult),
    Index("runs_by_sequence", "sequence"),
    Index("runs_by_group", "group", "sequence"),
    Index("runs_by_root", "counter_group", "sequence"),
    Index("runs_by_counter", "counter_group", "counter"),
    Index("runs_by_name", text(INDEXED_NAME), "sequence"),
    Index("runs_by_commit", text(COMMIT), postgresql_where=text(HAS_COMMIT)),
    # Lists by phase and result: what is rare among many runs is found by these.
    Index("runs_by_state", "phase", "result", "sequence", postgresql_where=text(NOT_SUCCESS)),
    Index("runs_by_root_and_state", "counter_group", "phase", "result", "sequence", postgresql_where=text(NOT_SUCCESS)),
    Index("runs_by_group_and_state", "group", "phase", "result", "sequence", postgresql_where=text(NOT_SUCCESS)),
    Index("runs_active", "partition", postgresql_where=text("NOT archived")),
    # What retention looks for: the oldest runs of a group root, and those with logs or archives.
    Index("runs_ended", "counter_group", ENDED_AT, postgresql_where=text("archived")),
    Index("runs_holding_logs", "counter_group", ENDED_AT, postgresql_where=text("holds_logs")),
    Index("runs_holding_archives", "counter_group", ENDED_AT, postgresql_where=text("holds_archives")),
    postgresql_with=_ROOM,
)

run_tasks = Table(
    "run_tasks",
    metadata,
    *_columns(RunTaskRow),
    PrimaryKeyConstraint("run_id", "name"),
    Index("run_tasks_waiting", "run_id", postgresql_where=text("waiting_approval")),
    Index("run_tasks_kept", "executor_task_id", postgresql_where=text("kept")),
    _one_of("status", RunTaskStatus),
    postgresql_with=_ROOM,
)
"""The tasks of runs, which share the version of their run."""

task_failures = Table(
    "task_failures",
    metadata,
    *_columns(TaskFailureRow),
    PrimaryKeyConstraint("run_id", "task"),
    Index("task_failures_by_sequence", "sequence"),
    Index("task_failures_by_root", "counter_group", "sequence"),
    postgresql_with=_ROOM,
)
"""The run tasks of which an attempt has failed: what may turn out to be flaky. Tasks that a restart keeps are not."""

deleted_runs = Table(
    "deleted_runs",
    metadata,
    *_columns(DeletedRunRow),
    PrimaryKeyConstraint("run_id"),
    Index("deleted_runs_by_counter", "counter_group", "counter"),
)
"""The numbers of deleted runs, which are still found in the log by their ids."""

executor_tasks = Table(
    "executor_tasks",
    metadata,
    *_columns(ExecutorTaskRow),
    PrimaryKeyConstraint("id"),
    _one_of("phase", ExecutorTaskPhase),
    Index("executor_tasks_by_run", "run_id"),
    postgresql_with=_ROOM,
)

executors = Table(
    "executors",
    metadata,
    *_columns(ExecutorRow),
    PrimaryKeyConstraint("id"),
    _one_of("state", ExecutorState),
    postgresql_with=_ROOM,
)

config = Table(
    "config",
    metadata,
    *_columns(ConfigRow),
    PrimaryKeyConstraint("kind", "id"),
    _one_of("kind", CONFIG_KINDS),
    Index("config_by_name", "kind", "parent", "name", unique=True),
    postgresql_with=_ROOM,
)
"""The things of the config service; `parent` is the id of the thing above, empty for users and the like."""

parked = Table(
    "parked",
    metadata,
    *_columns(ParkedRow),
    Column("at", _TIME, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("projection", "partition", "epoch", "sequence"),
)
"""Parked commits, by position; a retry reads them from the log again."""
