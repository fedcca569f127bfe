"""How an attempt at a task failed, and executor tasks that their executor did not see through."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"
branch_labels = None
depends_on = None

COLUMNS = (
    ("run_tasks", "failure", sa.Text, ""),
    ("executor_tasks", "interrupted", sa.Boolean, "false"),
)


def upgrade() -> None:
    for table, name, kind, so_far in COLUMNS:
        op.add_column(table, sa.Column(name, kind, nullable=False, server_default=so_far))
        op.alter_column(table, name, server_default=None)


def downgrade() -> None:
    for table, name, *_ in COLUMNS:
        op.drop_column(table, name)
