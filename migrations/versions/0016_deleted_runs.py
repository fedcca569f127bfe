"""The numbers of deleted runs. Those deleted before this migration come with the next `runstream rebuild`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision: str | None = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    name = sa.Text(collation="C")
    op.create_table(
        "deleted_runs",
        sa.Column("run_id", name, nullable=False),
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("counter_group", name, nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("group", name, nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("deleted_runs_by_counter", "deleted_runs", ["counter_group", "counter"])


def downgrade() -> None:
    op.drop_table("deleted_runs")
