"""The scheduler of a process."""

from __future__ import annotations

from runstream.jetstream.messaging import Notices, Questions
from runstream.maintenance.instances import ThisInstance
from runstream.policies import policies_of
from runstream.scheduler.scheduler import Scheduler
from runstream.service.platform import Platform
from runstream.service.wiring import executor_leases
from runstream.timers import open_timers


async def make_scheduler(platform: Platform, instance: ThisInstance) -> Scheduler:
    """Make a scheduler."""
    settings = platform.settings
    return Scheduler(
        platform.log,
        platform.pool(),
        await executor_leases(platform),
        instance,
        await open_timers(platform.nats, settings.namespace, replicas=settings.replicas),
        Questions(platform.nats),
        Notices(platform.nats),
        grace=settings.executor.lease_seconds,
        policies=policies_of(settings.retention),
    )
