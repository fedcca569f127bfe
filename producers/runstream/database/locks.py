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
