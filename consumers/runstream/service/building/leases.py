"""Where executors say that they are alive, and schedulers look."""

from __future__ import annotations

from runstream.leases import LeaseBucket, open_leases
from runstream.service.platform import Platform


async def executor_leases(platform: Platform) -> LeaseBucket:
    """The board, made when it is not there."""
    settings = platform.settings
    return await open_leases(
        platform.nats,
        f"{settings.namespace}_executors",
        seconds=settings.executor.lease_seconds,
        replicas=settings.replicas,
    )
