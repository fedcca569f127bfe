"""The projection of the runs service.

Tables are written out here as they were in this revision: `runstream.tables` goes on changing, this does not.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NAME = sa.Text(collation="C")
JSON = postgresql.JSON()
UPDATED = {"fillfactor": 75}
RUN_PHASES = ("setuperror", "queued", "cancelled", "running", "finished")
RUN_RESULTS = ("unknown", "stopped", "success", "failed")
RUN_TASK_STATUSES = ("notstarted", "skipped", "cancelled", "running", "stopped", "success", "failed")
EXECUTOR_TASK_PHASES = ("notstarted", "cancelled", "running", "stopped", "success", "failed")
EXECUTOR_STATES = ("registered", "lost", "deleted")


def upgrade() -> None:
    _checkpoints()
    _runs()
    _executors()
    op.create_table(
        "parked",
        sa.Column("projection", sa.Text, nullable=False),
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("aggregate", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("projection", "partition", "epoch", "sequence"),
    )


def downgrade() -> None:
    for table in (
        "parked",
        "executors",
        "executor_tasks",
        "run_tasks",
        "runs",
        "run_configs",
        "counters",
        "checkpoints",
        "epochs",
    ):
        op.drop_table(table)


def _one_of(column: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _tracked() -> tuple[sa.Column[int], ...]:
    return (
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
    )


def _checkpoints() -> None:
    op.create_table(
        "epochs",
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("current", sa.Boolean, nullable=False),
        sa.Column("partitions", sa.SmallInteger, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("service", "epoch"),
    )
    op.create_index("epochs_current", "epochs", ["service"], unique=True, postgresql_where=sa.text("current"))
    op.create_table(
        "checkpoints",
        sa.Column("projection", sa.Text, nullable=False),
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("run_sequence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("projection", "partition"),
        postgresql_with={"fillfactor": 20},
    )
    op.create_table(
        "counters",
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("root", NAME, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("partition", "root"),
        postgresql_with=UPDATED,
    )


def _runs() -> None:
    op.create_table(
        "run_configs",
        sa.Column("hash", NAME, nullable=False),
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("content", JSON, nullable=False),
        sa.PrimaryKeyConstraint("partition", "hash"),
    )
    op.create_table(
        "runs",
        sa.Column("id", NAME, primary_key=True),
        *_tracked(),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("numbered", sa.Boolean, nullable=False),
        sa.Column("counter_group", NAME, nullable=False),
        sa.Column("group", NAME, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("run_config", NAME, nullable=False),
        sa.Column("annotations", JSON, nullable=False),
        sa.Column("setup_errors", JSON, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("stop", sa.Boolean, nullable=False),
        sa.Column("enqueue_time", TIME, nullable=False),
        sa.Column("start_time", TIME),
        sa.Column("end_time", TIME),
        sa.Column("archived", sa.Boolean, nullable=False),
        _one_of("phase", RUN_PHASES),
        _one_of("result", RUN_RESULTS),
        postgresql_with=UPDATED,
    )
    op.create_index("runs_by_sequence", "runs", ["sequence"])
    op.create_index("runs_by_group", "runs", ["group", "sequence"])
    op.create_index("runs_by_counter", "runs", ["counter_group", "counter"])
    op.create_index("runs_active", "runs", ["partition"], postgresql_where=sa.text("NOT archived"))
    op.create_table(
        "run_tasks",
        sa.Column("run_id", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("id", NAME, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("skip", sa.Boolean, nullable=False),
        sa.Column("archive_steps", JSON, nullable=False),
        sa.Column("waiting_approval", sa.Boolean, nullable=False),
        sa.Column("approved", sa.Boolean, nullable=False),
        sa.Column("approvers", JSON, nullable=False),
        sa.Column("timedout", sa.Boolean, nullable=False),
        sa.Column("executor_task_id", NAME, nullable=False),
        sa.Column("executor_task_open", sa.Boolean, nullable=False),
        sa.Column("archives_pending", sa.Boolean, nullable=False),
        sa.Column("start_time", TIME),
        sa.Column("end_time", TIME),
        sa.PrimaryKeyConstraint("run_id", "name"),
        _one_of("status", RUN_TASK_STATUSES),
        postgresql_with=UPDATED,
    )


def _executors() -> None:
    op.create_table(
        "executor_tasks",
        sa.Column("id", NAME, primary_key=True),
        *_tracked(),
        sa.Column("executor_id", NAME, nullable=False),
        sa.Column("run_id", NAME, nullable=False),
        sa.Column("run_task_id", NAME, nullable=False),
        sa.Column("task", NAME, nullable=False),
        sa.Column("run_config", NAME, nullable=False),
        sa.Column("group", NAME, nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("timeout", sa.BigInteger, nullable=False),
        sa.Column("setup_step", JSON, nullable=False),
        sa.Column("steps", JSON, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("stop", sa.Boolean, nullable=False),
        sa.Column("timedout", sa.Boolean, nullable=False),
        sa.Column("lost", sa.Boolean, nullable=False),
        sa.Column("fail_error", sa.Text, nullable=False),
        sa.Column("start_time", TIME),
        sa.Column("end_time", TIME),
        _one_of("phase", EXECUTOR_TASK_PHASES),
        postgresql_with=UPDATED,
    )
    op.create_index("executor_tasks_by_run", "executor_tasks", ["run_id"])
    op.create_table(
        "executors",
        sa.Column("id", NAME, primary_key=True),
        *_tracked(),
        sa.Column("registration", JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        _one_of("state", EXECUTOR_STATES),
        postgresql_with=UPDATED,
    )
