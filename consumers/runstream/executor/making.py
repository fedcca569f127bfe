"""An executor, put together as the settings say."""

from __future__ import annotations

from pathlib import Path

from nats.aio.client import Client as Nats

from runstream.executor.drivers.noop import NoopRunner
from runstream.executor.drivers.process import HostRules, ProcessDriver
from runstream.executor.executor import Executor
from runstream.executor.jobs import Runner
from runstream.executor.limits import Limits
from runstream.executor.place import ExecutorPlace
from runstream.executor.pod_runner import PodRunner
from runstream.executor.pod_task import Surroundings
from runstream.executor.presence import Leases
from runstream.executor.sandbox import Visible
from runstream.executor.spec import Specs
from runstream.log.port import Log
from runstream.objects import ObjectStorage
from runstream.sealing import Keyring
from runstream.settings import Settings
from runstream.steplogs.live import LiveLogs

CONFIGURATION_FOLDER = Path("/etc/runstream")
"""Where administrators keep settings and tokens, by custom: no task sees it."""


def make_executor(
    settings: Settings, nats: Nats, log: Log, objects: ObjectStorage, leases: Leases, keyring: Keyring
) -> Executor:
    """The executor of this data directory, not started yet. `leases` is the board `<namespace>_executors`."""
    place = ExecutorPlace(settings.data_dir)
    offered = settings.executor
    if offered.driver == "noop":
        return Executor(place, offered, log, leases, NoopRunner())
    live = LiveLogs(nats, settings.namespace)
    driver = ProcessDriver(place.identity(offered.id), host_rules(settings, place))
    around = Surroundings(
        *(driver, log, objects, live, Specs(log, keyring), place.spare, offered.stop_grace_seconds),
        step_log_bytes=offered.step_log_bytes,
        task_disk_bytes=offered.task_disk_bytes,
    )
    runner: Runner = PodRunner(around, place.tasks)
    return Executor(place, offered, log, leases, runner, live)


def host_rules(settings: Settings, place: ExecutorPlace) -> HostRules:
    """Return how host tasks run here, as the settings say."""
    offered = settings.executor
    hidden = (settings.data_dir, settings.objects_path, settings.secrets_key_path, settings.file, CONFIGURATION_FOLDER)
    return HostRules(
        sandbox=offered.sandbox,
        visible=Visible(
            offered.sandbox_readonly,
            offered.sandbox_writable,
            tuple(path for path in hidden if path is not None),
            offered.sandbox_network,
        ),
        passed=offered.pass_environment,
        limits=Limits(
            processes=offered.task_processes,
            open_files=offered.task_open_files,
            file_bytes=offered.task_file_bytes,
            memory_bytes=offered.task_memory_bytes,
        ),
        accounts=place.folder,
        allow=offered.allow_host,
    )
