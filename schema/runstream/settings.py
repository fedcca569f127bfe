"""What can be set from outside, and its defaults; `runstream.service` says how values are found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

COMPONENTS = ("gateway", "scheduler", "executor", "datamanager")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSettings:
    """What an executor offers and how it runs tasks."""

    id: str = ""
    """Empty: made at the first start and kept in the executor's data directory."""
    driver: Literal["process", "noop"] = "process"
    active_tasks_limit: int = 2
    """How many tasks at once; 0 for no limit."""
    allow_host: bool = True
    allow_privileged_containers: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    sandbox: Literal["auto", "require", "off"] = "auto"
    sandbox_readonly: tuple[str, ...] = ()
    """Places of the machine that sandboxed tasks see beside the system's directories, read-only."""
    sandbox_writable: tuple[str, ...] = ()
    """The same, writable."""
    sandbox_network: bool = True
    """False: sandboxed tasks have no network but the loopback."""
    pass_environment: tuple[str, ...] = ()
    """Patterns (`PIP_*`, `*_proxy`) of the names of the executor's own variables that tasks get."""
    step_log_bytes: int = 256 << 20
    """Of the log of one step; 0 for no limit. What is written after that is dropped."""
    task_processes: int = 4096
    """Of one task, threads counted; 0 for no limit."""
    task_open_files: int = 65536
    """Of each process of a task; 0 for what the executor has itself."""
    task_file_bytes: int = 0
    """Of each file that a task writes; 0 for no limit."""
    task_disk_bytes: int = 0
    """Of the files of one task in its home and /tmp; 0 for no limit."""
    task_memory_bytes: int = 0
    """Of all processes of one task together; 0 for no limit."""
    lease_seconds: int = 15
    """How long an executor that does not renew its lease counts as alive; it ends its tasks a sixth before that."""
    stop_grace_seconds: float = 5.0
    """Between TERM and KILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process."""

    data_dir: Path
    file: Path | None = None
    """Where these settings were read from."""
    components: tuple[str, ...] = COMPONENTS
    namespace: str = "runstream"
    """First token of every subject; deployments that share a NATS account differ in it."""
    nats_url: str = ""
    """Empty: an embedded server in the data directory."""
    database_url: str = ""
    """A `postgresql://` URL; empty: an embedded server in the data directory."""
    database_schema: str = "runstream"
    partitions: int = 4
    """Fixed when the log is created."""
    replicas: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    """Of the gateway; 0 for the one used last, or any free one."""
    metrics_port: int = 0
    """Of /metrics, /healthz and /readyz in a process without gateway; 0 for any free one."""
    token: str = ""
    """Of the API; empty: generated and kept in the data directory."""
    objects_dir: Path | None = None
    """Of the posix object storage; None: below the data directory."""
    objects_url: str = ""
    """`s3://bucket/prefix?…`: the objects are in a bucket; empty: on disk."""
    objects_access_key: str = ""
    """Of the bucket, with `objects_secret_key`; empty: AWS's variables, or the machine's role."""
    objects_secret_key: str = field(default="", repr=False)
    secrets_key_file: Path | None = None
    """The keys by which secrets are sealed and opened; None: `secrets.key` in the data directory, made by a gateway."""
    import_trusted_keys: tuple[str, ...] = ()
    """Files of public keys (PEM); with some, only snapshots that are signed with one of them are imported."""
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    detailed_errors: bool = False
    otlp_endpoint: str = ""
    """Where traces and metrics are sent to (OTLP over HTTP); empty: nowhere."""
    wait_for_dependencies: str = ""
    """How long to wait for NATS and Postgres, such as `5m`; empty: until they are there, or a signal comes."""
    max_body_bytes: int = 1 << 20
    """Of a request to the gateway."""
    max_connections: int = 1024
    """Of the gateway's clients at one time, and at most half of the files that the process may open."""

    @property
    def objects_path(self) -> Path:
        """Where the posix object storage is."""
        return self.objects_dir or self.data_dir / "objects"

    @property
    def secrets_key_path(self) -> Path:
        """Where the keys for secrets are."""
        return self.secrets_key_file or self.data_dir / "secrets.key"
