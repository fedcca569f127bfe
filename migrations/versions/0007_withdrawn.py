"""Executor tasks that are withdrawn before anybody can be given them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run_tasks", sa.Column("withdrawn", sa.Text(collation="C"), nullable=False, server_default=""))
    op.alter_column("run_tasks", "withdrawn", server_default=None)


def downgrade() -> None:
    op.drop_column("run_tasks", "withdrawn")
