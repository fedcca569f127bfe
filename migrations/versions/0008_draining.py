"""Executors that take no new tasks, and when one was heard of last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("executors", sa.Column("draining", sa.Boolean, nullable=False, server_default="false"))
    op.alter_column("executors", "draining", server_default=None)
    op.add_column("executors", sa.Column("last_seen", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("executors", "last_seen")
    op.drop_column("executors", "draining")
