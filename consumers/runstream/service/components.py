"""Which components a process has, and what each of them is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from runstream.datamanager.datamanager import DataManager
from runstream.embedded.files import free_port
from runstream.executor.executor import Executor
from runstream.executor.making import make_executor
from runstream.gateway.gateway import Backends, Gateway
from runstream.gateway.ports import Stored
from runstream.gateway.routes.exports import export_routes
from runstream.gateway.routes.imports import import_routes
from runstream.gateway.routes.maintenance import maintenance_routes
from runstream.importing.serving import ServedImports
from runstream.importing.switching import tell_nats
from runstream.jetstream.notices import Notices
from runstream.jetstream.questions import Questions
from runstream.leases import LeaseBoard, open_leases
from runstream.lifecycle import Component
from runstream.maintenance import Instance, MaintenanceControl, Mode, Overview, Parkable, Roster
from runstream.objects.references import SharedObjects
from runstream.projections.as_of import RunsAsOf
from runstream.scheduler.scheduler import Scheduler
from runstream.service.data_dir import DataDir
from runstream.service.maintained import INSTANCE_SECONDS, maintained_service
from runstream.service.platform import Platform
from runstream.snapshots.serving import LogExports
from runstream.steplogs.reader import StepLogs
from runstream.telemetry.health import HealthServer
from runstream.telemetry.serving import HttpServer
from runstream.timers import open_timers


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
    mode = Mode(platform.log.subjects.service, platform.log)
    instance = await _instance(platform, data_dir, mode)
    components: list[Component] = [instance]
    if "datamanager" in settings.components:
        components.append(_datamanager(platform, mode))
    if "scheduler" in settings.components:
        components.append(Parkable("scheduler", mode, partial(_scheduler, platform, instance)))
    if "executor" in settings.components:
        components.append(Parkable("executor", mode, partial(_executor, platform)))
    gateway = "gateway" in settings.components
    if not gateway:
        web: HttpServer = _health(platform)
    else:
        overview = _overview(platform, instance)
        components.append(overview.roster)
        web = await _gateway(platform, data_dir, mode, overview)
        overview.ending = web.stopping
    return Parts([*components, web], web, gateway)


async def _instance(platform: Platform, data_dir: DataDir, mode: Mode) -> Instance:
    settings = platform.settings
    board = await open_leases(
        platform.nats, f"{settings.namespace}_instances", seconds=INSTANCE_SECONDS, replicas=settings.replicas
    )
    return Instance(platform.nats, board, settings.namespace, data_dir.instance(), settings.components, mode)


def _overview(platform: Platform, instance: Instance) -> Overview:
    settings = platform.settings

    async def before_disabling(service: str) -> None:
        await tell_nats(platform.nats, platform.pool(), settings.namespace, service)

    control = MaintenanceControl(platform.nats, settings.namespace, before_disabling=before_disabling)
    return Overview(control, Roster(instance.board), instance.modes)


async def _scheduler(platform: Platform, instance: Instance) -> Scheduler:
    settings = platform.settings
    return Scheduler(
        platform.log,
        platform.pool(),
        await _executor_leases(platform),
        instance,
        await open_timers(platform.nats, settings.namespace, replicas=settings.replicas),
        Questions(platform.nats),
        Notices(platform.nats),
        grace=settings.executor.lease_seconds,
    )


async def _executor(platform: Platform) -> Executor:
    leases = await _executor_leases(platform)
    return make_executor(platform.settings, platform.nats, platform.log, platform.objects, leases, platform.keyring)


def _datamanager(platform: Platform, mode: Mode) -> DataManager:
    """It goes on in maintenance: what others append while they drain is archived too."""

    async def moved(epoch: int) -> None:
        await mode.until(lambda: platform.log.epoch != epoch)

    return DataManager(platform.reading_log, platform.objects, platform.pool(), platform.deployment, moved=moved)


async def _executor_leases(platform: Platform) -> LeaseBoard:
    """Where executors say that they are alive, and schedulers look."""
    settings = platform.settings
    return await open_leases(
        platform.nats,
        f"{settings.namespace}_executors",
        seconds=settings.executor.lease_seconds,
        replicas=settings.replicas,
    )


async def _gateway(platform: Platform, data_dir: DataDir, mode: Mode, overview: Overview) -> Gateway:
    settings = platform.settings
    port = settings.port or free_port(settings.host, data_dir.remembered_port())
    step_logs = StepLogs(platform.nats, settings.namespace, platform.log, platform.objects)
    stored = Stored(step_logs, SharedObjects(platform.objects))
    exports = LogExports(platform.served_log, platform.objects, lambda: datetime.now(UTC), platform.parked_at)
    imports = await _imports(platform, data_dir)
    questions = Questions(platform.nats)
    return Gateway(
        replace(settings, port=port),
        Backends(platform.log, platform.pool(), RunsAsOf(platform.log), stored, questions),
        platform.telemetry,
        platform.checks(),
        mode=mode,
        keyring=platform.keyring,
        routers=[maintenance_routes(overview), export_routes(exports), import_routes(imports)],
    )


async def _imports(platform: Platform, data_dir: DataDir) -> ServedImports:
    maintained = await maintained_service(platform.nats, platform.settings)
    spool = data_dir.path / "imports"
    return ServedImports(platform.place(), maintained.occupy, maintained.require_parked, platform.objects, spool)


def _health(platform: Platform) -> HealthServer:
    settings = platform.settings
    return HealthServer(platform.telemetry, platform.checks(), settings.host, settings.metrics_port)
