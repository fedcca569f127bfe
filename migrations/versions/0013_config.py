"""The rows of users, organizations, projects, secrets and variables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision: str | None = "0012"
branch_labels = None
depends_on = None

_KINDS = ("user", "org", "projectgroup", "project", "secret", "variable", "remotesource")


def upgrade() -> None:
    name = sa.Text(collation="C")
    op.create_table(
        "config",
        sa.Column("kind", name, nullable=False),
        sa.Column("id", name, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("name", name, nullable=False),
        sa.Column("parent", name, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("kind", "id"),
        sa.CheckConstraint(f"kind IN ({', '.join(map(repr, _KINDS))})", name="kind_known"),
        postgresql_with={"fillfactor": 75},
    )
    op.create_index("config_by_name", "config", ["kind", "parent", "name"], unique=True)


def downgrade() -> None:
    op.drop_table("config")
    op.execute("DELETE FROM parked WHERE projection = 'config'")
    op.execute("DELETE FROM checkpoints WHERE projection = 'config'")
