"""Tasks that a restart keeps, when a task was approved, and what users noted with it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runstream.tables import JsonText

revision = "0005"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None

COLUMNS = (
    ("approved_at", sa.DateTime(timezone=True), True, None),
    ("annotations", JsonText(), False, "{}"),
    ("kept", sa.Boolean, False, "false"),
)


def upgrade() -> None:
    for name, kind, nullable, so_far in COLUMNS:
        op.add_column("run_tasks", sa.Column(name, kind, nullable=nullable, server_default=so_far))
        op.alter_column("run_tasks", name, server_default=None)


def downgrade() -> None:
    for name, *_ in COLUMNS:
        op.drop_column("run_tasks", name)
