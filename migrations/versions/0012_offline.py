"""Executors that were stopped are offline, apart from those that are lost."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision: str | None = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("state_known", "executors")
    op.create_check_constraint("state_known", "executors", "state IN ('registered', 'offline', 'lost', 'deleted')")


def downgrade() -> None:
    op.execute("UPDATE executors SET state = 'lost' WHERE state = 'offline'")
    op.drop_constraint("state_known", "executors")
    op.create_check_constraint("state_known", "executors", "state IN ('registered', 'lost', 'deleted')")
