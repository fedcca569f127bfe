"""Lists of the runs of a name, and of runs with tasks that wait for approval."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("runs_by_name", "runs", [sa.text("substr(name, 1, 100)"), "sequence"])
    op.create_index("run_tasks_waiting", "run_tasks", ["run_id"], postgresql_where=sa.text("waiting_approval"))


def downgrade() -> None:
    op.drop_index("run_tasks_waiting")
    op.drop_index("runs_by_name")
