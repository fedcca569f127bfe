"""The database: connections and transactions, and what is read from the projection.

Migrations are in `runstream.database.migrating`. What moves a schema (`moving`) is large, and is loaded only then.
"""

from runstream.database.database import Database
from runstream.database.transaction import Transaction

__all__ = ["Database", "Transaction"]
