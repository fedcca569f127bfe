"""Whose deployment this is, and which datamanager may change the archive of its log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deployment",
        sa.Column("singular", sa.Boolean, primary_key=True, server_default=sa.text("true")),
        sa.Column("id", sa.Text, nullable=False),
        sa.CheckConstraint("singular", name="deployment_is_one"),
    )
    op.create_table(
        "archives",
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("service", "epoch"),
    )


def downgrade() -> None:
    op.drop_table("archives")
    op.drop_table("deployment")
