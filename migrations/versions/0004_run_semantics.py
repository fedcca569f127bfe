"""Restarts, retries, pauses, policies and priorities: rows are made anew from the log, as run configs have more fields.

Only rows that are derived are removed; with their checkpoints gone, the next scheduler projects each partition from
its beginning.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runstream.tables import JsonText

revision = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None

DERIVED = ("runs", "run_tasks", "executor_tasks", "executors", "run_configs", "counters", "parked", "checkpoints")
TIME = sa.DateTime(timezone=True)


def columns() -> dict[str, list[sa.Column[object]]]:
    return {
        "runs": [
            sa.Column("timedout", sa.Boolean, nullable=False),
            sa.Column("reason", sa.Text, nullable=False),
            sa.Column("priority", sa.Integer, nullable=False),
            sa.Column("request", sa.Text, nullable=False),
            sa.Column("restart", JsonText(), nullable=False),
            sa.Column("paused_at", TIME),
            sa.Column("paused_for", sa.BigInteger, nullable=False),
        ],
        "run_tasks": [
            sa.Column("attempt", sa.Integer, nullable=False),
            sa.Column("attempts", JsonText(), nullable=False),
            sa.Column("not_before", TIME),
        ],
        "executor_tasks": [
            sa.Column("attempt", sa.Integer, nullable=False),
            sa.Column("workspaces", JsonText(), nullable=False),
        ],
    }


def upgrade() -> None:
    _make_anew()
    for table, added in columns().items():
        for column in added:
            op.add_column(table, column)


def downgrade() -> None:
    _make_anew()
    for table, added in columns().items():
        for column in added:
            op.drop_column(table, column.name)


def _make_anew() -> None:
    for table in DERIVED:
        op.execute(f"DELETE FROM {table}")  # noqa: S608 - the names are those above
