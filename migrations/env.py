"""How Alembic runs here: on the connection that `runstream.database.migrating` gives, in its search_path's schema."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from runstream.tables import metadata

connection: Connection | None = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("migrations are run by `runstream serve` when it starts, not by alembic alone")

context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
