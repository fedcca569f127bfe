"""Which partitions each scheduler process is to have: the same answer for all who know the same living instances."""

from __future__ import annotations

import hashlib
from collections.abc import Collection


def share_out(partitions: int, instances: Collection[str]) -> dict[int, str]:
    """The instance of each partition; empty when there is none.

    Even: instances differ by at most one partition. Steady: each partition ranks the instances in an order of its
    own (rendezvous hashing) and takes the first that has room, so that few partitions move when an instance
    comes or goes.
    """
    if not instances:
        return {}
    each, extra = divmod(partitions, len(instances))
    load = dict.fromkeys(instances, 0)
    shares: dict[int, str] = {}
    for partition in range(partitions):
        chosen = next(
            instance
            for instance in sorted(load, key=lambda one: _rank(partition, one))
            if load[instance] < each or (load[instance] == each and extra > 0)
        )
        extra -= load[chosen] == each
        load[chosen] += 1
        shares[partition] = chosen
    return shares


def _rank(partition: int, instance: str) -> bytes:
    return hashlib.blake2b(f"{partition}/{instance}".encode(), digest_size=8).digest()
