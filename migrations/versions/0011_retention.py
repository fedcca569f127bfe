"""What retention needs: which runs still hold logs and archives, and which executor tasks restarts keep.

Runs that are archived already hold what their tasks have stored.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision: str | None = "0010"
branch_labels = None
depends_on = None

_ENDED_AT = "coalesce(end_time, enqueue_time)"
_HOLD = """
UPDATE runs SET
    holds_logs = EXISTS (SELECT FROM run_tasks t WHERE t.run_id = runs.id AND {ran}),
    holds_archives = EXISTS (
        SELECT FROM run_tasks t WHERE t.run_id = runs.id AND t.archive_steps::text <> '[]' AND {ran}
    )
WHERE archived
""".format(ran="(t.executor_task_id <> '' OR t.attempts::text <> '[]')")  # noqa: S608  no input


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    for name in ("logs_removed_at", "archives_removed_at"):
        op.add_column("runs", sa.Column(name, time, nullable=True))
    for name in ("holds_logs", "holds_archives"):
        op.add_column("runs", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute(_HOLD)
    for name in ("holds_logs", "holds_archives"):
        op.alter_column("runs", name, server_default=None)
    for name, where in (
        ("runs_ended", "archived"),
        ("runs_holding_logs", "holds_logs"),
        ("runs_holding_archives", "holds_archives"),
    ):
        op.create_index(name, "runs", ["counter_group", sa.text(_ENDED_AT)], postgresql_where=sa.text(where))
    op.create_table(
        "removals",
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("service", "epoch", "partition"),
    )
    op.create_table(
        "retention",
        sa.Column("singular", sa.Boolean, primary_key=True, server_default=sa.true()),
        sa.Column("since", time, nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("singular", name="retention_is_one"),
    )
    op.execute("INSERT INTO retention DEFAULT VALUES")
    op.create_index("run_tasks_kept", "run_tasks", ["executor_task_id"], postgresql_where=sa.text("kept"))


def downgrade() -> None:
    op.drop_table("retention")
    op.drop_table("removals")
    op.drop_index("run_tasks_kept", "run_tasks")
    for name in ("runs_ended", "runs_holding_logs", "runs_holding_archives"):
        op.drop_index(name, "runs")
    for name in ("logs_removed_at", "archives_removed_at", "holds_logs", "holds_archives"):
        op.drop_column("runs", name)
