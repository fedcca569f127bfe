"""Advisory locks have numbers; ours have names."""

from __future__ import annotations

import hashlib


def lock_key(name: str) -> int:
    """The number of the lock of this name, as Postgres's signed 64 bits. Locks are shared by a whole database."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def partition_lock_key(schema: str, namespace: str, service: str, partition: int) -> int:
    """The number of the lock that whoever projects this partition holds."""
    return lock_key(f"{schema}/{namespace}/{service}/{partition}")


HOLDERS = """
SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid <> pg_backend_pid()
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) | objid::bigint = $1
"""
"""The sessions that hold the lock of this number."""
