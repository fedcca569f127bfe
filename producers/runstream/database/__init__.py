"""The database: connections and transactions, migrations, and what is read from the projection."""

from runstream.database.database import Database
from runstream.database.migrating import MigrationState, migrate, migrate_down, migration_state, require_migrated
from runstream.database.transaction import Transaction

__all__ = [
    "Database",
    "MigrationState",
    "Transaction",
    "migrate",
    "migrate_down",
    "migration_state",
    "require_migrated",
]
