"""The database: connections, transactions and migrations, and queries of the projection."""

from runstream.database.database import Database
from runstream.database.transaction import Transaction

__all__ = ["Database", "Transaction"]
