"""The executor of a process."""

from __future__ import annotations

from runstream.executor.executor import Executor
from runstream.executor.making import make_executor
from runstream.service.building.leases import executor_leases
from runstream.service.platform import Platform


async def executor_of(platform: Platform) -> Executor:
    """An executor that is not started yet."""
    leases = await executor_leases(platform)
    return make_executor(platform.settings, platform.nats, platform.log, platform.objects, leases, platform.keyring)
