"""What became of each epoch, and where it came from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None

STATES = ("loading", "ready", "deleted")


def upgrade() -> None:
    listed = ", ".join(f"'{state}'" for state in STATES)
    op.add_column("epochs", sa.Column("state", sa.Text, nullable=False, server_default="ready"))
    op.add_column("epochs", sa.Column("origin", sa.Text, nullable=False, server_default=""))
    op.create_check_constraint(
        "epochs_state_known", "epochs", f"state IN ({listed}) AND (state = 'ready' OR NOT current)"
    )


def downgrade() -> None:
    op.drop_constraint("epochs_state_known", "epochs")
    op.drop_column("epochs", "origin")
    op.drop_column("epochs", "state")
