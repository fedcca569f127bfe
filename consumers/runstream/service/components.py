"""Which components a process has, and what each of them is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runstream.embedded.files import free_port
from runstream.executor.making import make_executor
from runstream.gateway.gateway import Gateway
from runstream.leases import LeaseBoard, open_leases
from runstream.lifecycle import Component
from runstream.projections.as_of import RunsAsOf
from runstream.scheduler.scheduler import Scheduler
from runstream.service.data_dir import DataDir
from runstream.service.platform import Platform
from runstream.steplogs.reader import StepLogs
from runstream.telemetry import HealthServer, HttpServer
from runstream.timers import open_timers

INSTANCE_SECONDS = 3
"""How long a scheduler that says nothing counts as one; its partitions are free when its session ends."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The components of a process, in the order in which they start."""

    components: list[Component]
    web: HttpServer
    """The gateway, or what answers /healthz, /readyz and /metrics in a process without one."""
    gateway: bool
    """Whether `web` is the gateway."""


async def build(platform: Platform, data_dir: DataDir) -> Parts:
    """The components that the settings name, not started yet. The gateway is last: it lets the world in."""
    settings = platform.settings
    components: list[Component] = []
    if "scheduler" in settings.components:
        components.append(await _scheduler(platform))
    if "executor" in settings.components:
        leases = await _executor_leases(platform)
        components.append(make_executor(settings, platform.nats, platform.log, platform.objects, leases))
    gateway = "gateway" in settings.components
    web = _gateway(platform, data_dir) if gateway else _health(platform)
    return Parts([*components, web], web, gateway)


async def _scheduler(platform: Platform) -> Scheduler:
    settings, nats = platform.settings, platform.nats
    return Scheduler(
        platform.log,
        platform.pool(),
        await _executor_leases(platform),
        await open_leases(
            nats, f"{settings.namespace}_instances", seconds=INSTANCE_SECONDS, replicas=settings.replicas
        ),
        await open_timers(nats, settings.namespace, replicas=settings.replicas),
        grace=settings.executor.lease_seconds,
    )


async def _executor_leases(platform: Platform) -> LeaseBoard:
    """Where executors say that they are alive, and schedulers look."""
    settings = platform.settings
    return await open_leases(
        platform.nats,
        f"{settings.namespace}_executors",
        seconds=settings.executor.lease_seconds,
        replicas=settings.replicas,
    )


def _gateway(platform: Platform, data_dir: DataDir) -> Gateway:
    settings = platform.settings
    port = settings.port or free_port(settings.host, data_dir.remembered_port())
    step_logs = StepLogs(platform.nats, settings.namespace, platform.log, platform.objects)
    return Gateway(
        replace(settings, port=port),
        platform.log,
        platform.pool(),
        RunsAsOf(platform.log),
        step_logs,
        platform.telemetry,
        platform.checks(),
    )


def _health(platform: Platform) -> HealthServer:
    settings = platform.settings
    return HealthServer(platform.telemetry, platform.checks(), settings.host, settings.metrics_port)
