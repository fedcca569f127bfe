"""The database: connections and transactions, and what is read from the projection.

Migrations are in `runstream.database.migrating`: what they need is large, and most processes never migrate.
"""

from runstream.database.database import Database
from runstream.database.transaction import Transaction

__all__ = ["Database", "Transaction"]
