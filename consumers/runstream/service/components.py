"""Which components a process has, and in which order they start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from runstream.leases import open_leases
from runstream.lifecycle import Component
from runstream.maintenance import Instance, Mode, Parkable
from runstream.service.data_dir import DataDir
from runstream.service.maintained import INSTANCE_SECONDS
from runstream.service.platform import Platform
from runstream.telemetry.health import HealthServer
from runstream.telemetry.http_server import HttpServer

if TYPE_CHECKING:
    from runstream.executor.executor import Executor


@dataclass(frozen=True, slots=True)
class Parts:
    """The components of a process, in the order in which they start."""

    components: list[Component]
    web: HttpServer
    """The gateway, or what answers /healthz, /readyz and /metrics in a process without one."""
    gateway: bool
    """Whether `web` is the gateway."""
    executors: list[Executor]
    """The executor, once it was made."""


async def build(platform: Platform, data_dir: DataDir) -> Parts:
    """The components that the settings name, not started yet. The gateway is last: it lets the world in."""
    # Imported where they are wanted: a process costs only what it has.
    settings = platform.settings
    mode = Mode(platform.log.subjects.service, platform.log)
    instance = await _instance(platform, data_dir, mode)
    components: list[Component] = [instance]
    if platform.database is not None:
        from runstream.service.building.stalls import make_stall_watch

        watch = make_stall_watch(platform)
        components.append(watch)
        platform.told["stalls"] = watch.told
    if "datamanager" in settings.components:
        from runstream.service.building.datamanager import make_datamanager

        components.append(make_datamanager(platform, mode))
    if "scheduler" in settings.components:
        from runstream.service.building.scheduler import make_scheduler

        components.append(Parkable("scheduler", mode, partial(make_scheduler, platform, instance)))
    executors: list[Executor] = []
    if "executor" in settings.components:
        from runstream.service.building.executor import executor_maker

        components.append(Parkable("executor", mode, executor_maker(platform, executors)))
    if "gateway" in settings.components:
        from runstream.service.building.gateway import make_gateway

        roster, gateway = await make_gateway(platform, data_dir, mode, instance)
        return Parts([*components, roster, gateway], gateway, gateway=True, executors=executors)
    health = HealthServer(
        platform.telemetry, platform.checks(), settings.host, settings.metrics_port, facts=platform.facts()
    )
    return Parts([*components, health], health, gateway=False, executors=executors)


async def _instance(platform: Platform, data_dir: DataDir, mode: Mode) -> Instance:
    settings = platform.settings
    board = await open_leases(
        platform.nats, f"{settings.namespace}_instances", seconds=INSTANCE_SECONDS, replicas=settings.replicas
    )
    return Instance(platform.nats, board, settings.namespace, data_dir.instance(), settings.components, mode)
