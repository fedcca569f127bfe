"""The gateway of a process, and its backends: log, exports, imports, maintenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp

from runstream import config_folding
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.configstore.reading import parked_as_of
from runstream.database.epochs import remember_export
from runstream.embedded.process import free_port
from runstream.errors import BadRequestError, InternalError
from runstream.gateway import web_page
from runstream.gateway.app import Backends, Gateway
from runstream.gateway.context import GitRepositories
from runstream.gateway.errors import error_response
from runstream.gateway.routes.maintenance import EVERY_SERVICE, export_routes, import_routes, maintenance_routes
from runstream.gateway.routes.operations import operation_routes
from runstream.gateway.routes.storage import storage_routes
from runstream.gateway.session_records import StoredRecords
from runstream.git.mirrors import Mirrors
from runstream.git.server import GitServer
from runstream.git.sources import AllowedSources
from runstream.importing.epochs import publish_epoch
from runstream.importing.importer import ImportedService, ServedImports
from runstream.importing.trusted_keys import announce_trusted_keys, fingerprints
from runstream.jetstream.messaging import Questions
from runstream.leases import ExecutorSightings
from runstream.log.jetstream import LogReader
from runstream.log.streams import described
from runstream.maintenance.instances import Overview, Roster, ThisInstance
from runstream.maintenance.lock import maintained_service
from runstream.maintenance.mode import Mode, Parkable
from runstream.maintenance.request import SERVICE, SERVICES, MaintenanceControl
from runstream.objects.caches import StoredCaches
from runstream.objects.references import SharedObjects
from runstream.policies import parse_age, parse_size, policies_of
from runstream.projections.as_of import RunsAsOf
from runstream.projections.parked import ParkedCommit, parked_at
from runstream.retention.caches import CachePolicy
from runstream.retention.usage import StorageUse
from runstream.service.data_dir import DataDir
from runstream.service.platform import Platform
from runstream.service.wiring import executor_leases, keyring_of
from runstream.service.wiring.operations import ServedFsck, ServedHealth, ServedParked
from runstream.settings import Settings
from runstream.snapshots.export import LogExports
from runstream.steplogs.reader import StepLogReader
from runstream.subjects import Subjects

_CHOICES = {EVERY_SERVICE: SERVICES, **{service: (service,) for service in SERVICES}}
"""The services of an export or import whose request names none, or one."""


def while_waiting(path: str, missing: InternalError) -> ASGIApp:
    """Return what answers a request of a path while the gateway waits for a missing dependency."""
    if path == "/":
        return RedirectResponse(f"{web_page.PREFIX}/", 307)
    return _PAGE if path == web_page.PREFIX or path.startswith(f"{web_page.PREFIX}/") else error_response(missing)


_PAGE = web_page.PageFiles()


async def make_gateway(
    platform: Platform, data_dir: DataDir, mode: Mode, instance: ThisInstance
) -> tuple[Roster, Parkable, Gateway]:
    """Make a gateway, the roster of instances and the follower of the config store, which have to start before it."""
    settings, overview = platform.settings, _overview(platform, instance)
    port = settings.port or free_port(settings.host, data_dir.remembered_port())
    step_logs = StepLogReader(platform.nats, settings.namespace, platform.log, platform.objects)
    shared = SharedObjects(platform.objects)
    exports = {service: _exports(platform, services) for service, services in _CHOICES.items()}
    imports = {service: await _imports(platform, data_dir, services) for service, services in _CHOICES.items()}
    questions = Questions(platform.nats)
    config_mode = instance.modes[config_folding.SERVICE]
    config = ConfigStore(platform.config(), maintenance=lambda: config_mode.why() if config_mode.request else None)
    following = Parkable("gateway", config_mode, partial(_follower, config))
    sightings = ExecutorSightings(await executor_leases(platform))
    gateway = Gateway(
        replace(settings, port=port),
        Backends(
            platform.log,
            platform.pool(),
            RunsAsOf(platform.log),
            step_logs,
            StoredCaches(platform.objects),
            shared,
            questions,
            sightings,
            config,
            git_repositories(settings, data_dir.path),
            await StoredRecords.open(platform.nats, settings.namespace, settings.replicas),
        ),
        platform.telemetry,
        platform.checks(),
        facts=platform.facts(),
        mode=mode,
        keyring=keyring_of(settings),
        routers=[
            maintenance_routes(overview),
            export_routes(exports),
            import_routes(imports),
            storage_routes(_storage_use(platform)),
            operation_routes(ServedParked(platform), ServedFsck(platform), ServedHealth(platform)),
        ],
    )
    overview.ending = gateway.stopping
    return overview.roster, following, gateway


def git_repositories(settings: Settings, folder: Path) -> GitRepositories:
    """Return the git repositories of a gateway with this data directory: mirrors of its own, and those of users.

    Raises BadRequestError for settings that are not valid.
    """
    try:
        networks = tuple(map(ip_network, settings.git_networks))
        expiry = parse_age(settings.git_refs_age)
    except ValueError as error:
        raise BadRequestError(
            f"git_networks or git_refs_age: {error}",
            code="invalidSettings",
            hint="a network is written as in 127.0.0.0/8, an age as in 30d",
        ) from error
    allowed = AllowedSources(folders=tuple(map(Path, settings.git_folders)), networks=networks)
    pushed = settings.git_repositories_dir or folder / "repositories"
    return GitRepositories(Mirrors(folder / "mirrors", allowed), GitServer(pushed), expiry)


async def _follower(config: ConfigStore) -> ConfigFollower:
    return ConfigFollower(config)


def _overview(platform: Platform, instance: ThisInstance) -> Overview:
    settings = platform.settings

    async def before_disabling(service: str) -> None:
        await publish_epoch(platform.nats, platform.pool(), settings.namespace, service)

    control = MaintenanceControl(platform.nats, settings.namespace, before_disabling=before_disabling)
    return Overview(control, Roster(instance.board), instance.modes)


def _storage_use(platform: Platform) -> StorageUse:
    kept = platform.settings.retention
    caches = CachePolicy(parse_age(kept.caches.age), parse_size(kept.caches.size))
    return StorageUse(
        platform.log, platform.objects, platform.pool(), policies_of(kept), caches, lambda: datetime.now(UTC)
    )


def _exports(platform: Platform, services: Sequence[str]) -> LogExports:
    return LogExports(
        partial(_served_logs, platform, services),
        platform.objects,
        lambda: datetime.now(UTC),
        parked=partial(_parked_at, platform),
        remember=partial(remember_export, platform.pool()),
    )


async def _imports(platform: Platform, data_dir: DataDir, services: Sequence[str]) -> ServedImports:
    trusted = platform.settings.import_trusted_keys
    imported = []
    for service in services:
        maintained = await maintained_service(platform.nats, platform.settings, service)
        place = platform.service_place(service)
        await announce_trusted_keys(platform.nats, place.namespace, service, fingerprints(trusted))
        imported.append(ImportedService(place, maintained.hold, maintained.require_parked))
    return ServedImports(imported, platform.objects, data_dir.path / "imports", trusted)


async def _served_logs(platform: Platform, services: Sequence[str]) -> list[LogReader]:
    return [await _served_log(platform, service) for service in services]


async def _served_log(platform: Platform, service: str) -> LogReader:
    """Return a reader of the epoch that NATS names now: in maintenance another epoch may have replaced ours."""
    ours = platform.log if service == SERVICE else platform.config()
    namespace = ours.subjects.namespace
    description = await described(platform.nats, namespace, service)
    if description is None:
        return LogReader(platform.nats, ours.subjects, ours.partitions)
    return LogReader(platform.nats, Subjects(namespace, service, description.epoch), description.partitions)


async def _parked_at(platform: Platform, subjects: Subjects, positions: tuple[int, ...]) -> Sequence[ParkedCommit]:
    """Return the parked commits of a log, as of these positions."""
    log = LogReader(platform.nats, subjects, len(positions))
    if subjects.service == config_folding.SERVICE:
        return await parked_as_of(log, positions)
    return await parked_at(log, platform.pool(), positions)
