"""The executor of a process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from runstream.executor.executor import TaskExecutor, make_executor
from runstream.service.platform import Platform
from runstream.service.wiring import executor_leases, keyring_of


def executor_maker(platform: Platform, made: list[TaskExecutor]) -> Callable[[], Awaitable[TaskExecutor]]:
    """Return a function that makes an executor and puts it in `made`. Keys are read once.

    Raise BadRequestError for a bad file of keys.
    """
    keyring = keyring_of(platform.settings)

    async def make() -> TaskExecutor:
        leases = await executor_leases(platform)
        made[:] = [make_executor(platform.settings, platform.nats, platform.log, platform.objects, leases, keyring)]
        return made[0]

    return make
