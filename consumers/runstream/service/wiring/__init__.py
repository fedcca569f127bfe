"""The assembly of a process from its components, and the order in which they start.

Each component has a module here, which only a process with that component imports: the others cost neither time at the
start nor memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from runstream import config_folding
from runstream.jetstream.messaging import Questions
from runstream.leases import LeaseBucket, open_leases
from runstream.lifecycle import Component
from runstream.maintenance.instances import ThisInstance, open_instance_leases
from runstream.maintenance.mode import Mode, Parkable
from runstream.service.data_dir import DataDir
from runstream.service.platform import Platform
from runstream.settings import Settings
from runstream.telemetry.health import HealthServer
from runstream.telemetry.http_server import HttpServer

if TYPE_CHECKING:
    from runstream.executor.executor import TaskExecutor
    from runstream.sealing import Keyring
    from runstream.service.stalls import StallWatch


@dataclass(frozen=True, slots=True)
class Parts:
    """The components of a process, in the order in which they start."""

    components: list[Component]
    web: HttpServer
    """The gateway, or the server of /healthz, /readyz and /metrics in a process without one."""
    gateway: bool
    """True if `web` is the gateway."""
    executors: list[TaskExecutor]
    """The current executor, once it is made."""
    admin_login_link: Callable[[], Awaitable[str]] | None = None
    """Returns the URL of a link that logs the administrator in, once; None in a process without a gateway."""


async def build(platform: Platform, data_dir: DataDir) -> Parts:
    """Make the components that the settings name. The gateway is last, because it accepts requests once it starts."""
    settings = platform.settings
    mode = Mode(platform.log.subjects.service, platform.log)
    modes = [mode]
    if platform.config_log is not None:
        modes.append(Mode(platform.config_log.subjects.service, platform.config_log))
    instance = await _instance(platform, data_dir, modes)
    components: list[Component] = [instance]
    if platform.database is not None:
        watch = _stall_watch(platform)
        components.append(watch)
        platform.component_facts["stalls"] = watch.as_json
    if "datamanager" in settings.components:
        from runstream.service.wiring.datamanager import make_datamanager

        components.append(make_datamanager(platform, platform.log, mode))
        components.append(make_datamanager(platform, platform.config(), instance.modes[config_folding.SERVICE]))
        from runstream.service.wiring.cleaner import make_cleaner

        components.append(Parkable("cleaner", mode, partial(make_cleaner, platform)))
    if "scheduler" in settings.components:
        from runstream.service.wiring.scheduler import make_scheduler

        components.append(Parkable("scheduler", mode, partial(make_scheduler, platform, instance)))
    if "configstore" in settings.components:
        from runstream.service.wiring.configstore import make_configstore

        components.append(
            Parkable(
                "configstore", instance.modes[config_folding.SERVICE], partial(make_configstore, platform, instance)
            )
        )
    executors: list[TaskExecutor] = []
    if "executor" in settings.components:
        from runstream.service.wiring.executor import executor_maker

        components.append(Parkable("executor", mode, executor_maker(platform, executors)))
    if "gateway" in settings.components:
        from runstream.service.wiring.gateway import make_gateway

        *others, gateway = await make_gateway(platform, data_dir, mode, instance)
        return Parts(
            [*components, *others, gateway],
            gateway,
            gateway=True,
            executors=executors,
            admin_login_link=gateway.admin_login_link,
        )
    health = HealthServer(
        platform.telemetry, platform.checks(), settings.host, settings.metrics_port, facts=platform.facts()
    )
    return Parts([*components, health], health, gateway=False, executors=executors)


async def _instance(platform: Platform, data_dir: DataDir, modes: Sequence[Mode]) -> ThisInstance:
    settings = platform.settings
    board = await open_instance_leases(platform.nats, settings)
    return ThisInstance(platform.nats, board, settings.namespace, data_dir.instance(), settings.components, *modes)


def _stall_watch(platform: Platform) -> StallWatch:
    from runstream.service.stalls import Consumed, StallWatch

    questions = Questions(platform.nats)

    def consumed() -> list[Consumed]:
        logs = [platform.reading_log(), platform.reading_config_log()]
        return [Consumed(log, platform.pool(), questions, platform.objects) for log in logs]

    return StallWatch(consumed)


async def executor_leases(platform: Platform) -> LeaseBucket:
    """Return the leases that executors renew and schedulers watch; create their bucket where it is missing."""
    settings = platform.settings
    return await open_leases(
        platform.nats,
        f"{settings.namespace}_executors",
        seconds=settings.executor.lease_seconds,
        replicas=settings.replicas,
    )


def keyring_of(settings: Settings) -> Keyring:
    """Return the keys that seal and open secrets, of the settings' file. Raise BadRequestError for a bad file.

    Without a setting, a gateway makes the file: it is the first component that needs keys.
    """
    from runstream.sealing import Keyring, make_key_file

    path = settings.secrets_key_path
    if settings.secrets_key_file is None and not path.exists():
        if "gateway" not in settings.components:
            return Keyring()
        make_key_file(path)
    return Keyring.read(path)
