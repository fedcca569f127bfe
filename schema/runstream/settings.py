"""The settings, each declared once.

The settings file, the RUNSTREAM_* variables, the options of commands, errors and docs/reference/settings.md follow from
these declarations (`runstream.service.configuration` says how values are found).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from runstream.subjects import MAX_PARTITIONS

COMPONENTS = ("gateway", "scheduler", "executor", "datamanager", "configstore")
SECTIONS = ("executor", "retention", "retention.runs", "retention.caches")
"""The settings that group further settings."""
OPTION_GROUPS = (
    "What runs", "Servers (embedded ones are started where no URL is given)", "HTTP", "Executor", "Watching",
)  # fmt: skip
"""Headings of the options in the help of a command."""
_RUNS, _SERVERS, _HTTP, _EXECUTOR, _WATCHING = OPTION_GROUPS
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The declaration of a setting."""

    key: str = ""
    """`port`, `executor.lease_seconds`; from the field, like `kind` and `default`."""
    kind: Any = None
    default: object = None
    help: str
    unit: str = ""
    default_words: str = ""
    """The default, where its value does not say it."""
    group: str = ""
    """The heading of its option; empty for a setting without one."""
    commands: Literal["all", "servers", "storage", "serve"] = "serve"
    """The commands with the option: all, before the name of the command; those that use the servers, those that also
    use the object storage, or `serve`."""
    components: tuple[str, ...] = ()
    """The components that use it; empty for all."""
    between: tuple[float, float] | None = None
    choices: tuple[int, ...] = ()
    """The allowed numbers, where they are few."""
    schemes: tuple[str, ...] = ()
    """How a URL begins."""
    page: str = ""
    """The page of the documentation about it."""

    @property
    def name(self) -> str:
        """The key without its section."""
        return self.key.rpartition(".")[2]

    @property
    def option(self) -> str:
        """The option, such as `--nats-url`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The environment variable, such as RUNSTREAM_NATS_URL."""
        return f"RUNSTREAM_{self.key.replace('.', '_').upper()}"

    @property
    def default_text(self) -> str:
        """The default as the environment gives it; empty for none."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        value = ",".join(self.default) if isinstance(self.default, tuple) else self.default
        return self.default_words or ("" if value is None else str(value))


def _declaration(**about: Any) -> Mapping[str, Setting]:
    return {"setting": Setting(**about)}


def _setting(default: T, group: str = "", *, shown: bool = True, **more: Any) -> T:
    """Return the field of a setting, as `dataclasses.field` does."""
    declared: Any = field(default=default, repr=shown, metadata=_declaration(group=group, **more))
    return declared  # type: ignore[no-any-return]


_GATEWAY = ("gateway",)
_WITHOUT_GATEWAY = ("scheduler", "executor", "datamanager", "configstore")
_WITH_DATABASE = ("gateway", "scheduler", "datamanager", "configstore")
_WITH_LEASES = ("gateway", "scheduler", "executor")
_BYTES = (0, 1 << 60)
_PORTS = (0, 65535)
# fmt: off



@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSettings:
    """The settings of an executor: its offer, and how it runs tasks."""

    id: str = _setting("", help="Its id; none: made at the first start and kept in the executor's data directory.")
    driver: Literal["process", "noop"] = _setting("process", _EXECUTOR,
        help="How to run tasks: as processes, or not at all (`noop`, for tests).")
    active_tasks_limit: int = _setting(2, _EXECUTOR, between=(0, 10_000),
        help="Maximum number of tasks that this executor runs at once; 0: no limit.")
    allow_host: bool = _setting(True, help="Whether tasks may run on this machine itself.")
    engine: str = _setting("", _EXECUTOR, schemes=("unix://", "tcp://", "kubernetes://"),
        page="explanation/containers.md",
        help="Where tasks with containers run: unix:///var/run/docker.sock, tcp://HOST:PORT, or kubernetes://NAMESPACE "
             "(how-to/kubernetes.md); none: no such tasks.")
    engine_tls_dir: Path | None = _setting(None, page="explanation/containers.md",  # noqa: RUF009
        help="Directory with ca.pem, cert.pem and key.pem for a tcp:// engine; none: a connection without TLS.")
    pull_policy: Literal["always", "missing", "never"] = _setting("always",
        help="When to pull the image of a container: at each task, which checks the login; if it is missing; or never.")
    pod_network: str = _setting("",
        help="Network of containers: `none`, `host`, or the name of one; none: the engine's default.")
    pod_node_labels: dict[str, str] = field(default_factory=dict, metadata=_declaration(
        help="Labels that the node of each pod must have; only with a kubernetes:// engine."))
    allow_privileged_containers: bool = _setting(False, page="explanation/containers.md",
        help="Whether containers may be privileged: such a task can do all that root can on the engine's machine.")
    setup_seconds: float = _setting(300.0, unit="seconds", between=(1, 86_400),
        help="Maximum time of a task's setup, in which images are pulled.")
    labels: dict[str, str] = field(default_factory=dict, metadata=_declaration(
        help="Labels that tasks may ask for (`runtime.labels`)."))
    sandbox: Literal["auto", "require", "off"] = _setting("auto", _EXECUTOR, page="explanation/sandbox.md",
        help="Sandbox for host tasks: used where available, required (without one, no host tasks run), or off.")
    sandbox_readonly: tuple[str, ...] = _setting((),
        help="Absolute paths that sandboxed tasks see beside the system's directories, read-only.")
    sandbox_writable: tuple[str, ...] = _setting((),
        help="The same, writable: a cache, for example. As root, a task's user needs the permission too.")
    sandbox_network: bool = _setting(True, help="With `false`, sandboxed tasks have no network but the loopback.")
    pass_environment: tuple[str, ...] = _setting((),
        help="Patterns of the executor's own variables that tasks get, such as `PIP_*`, `UV_*`, `*_proxy`.")
    step_log_bytes: int = _setting(256 << 20, unit="bytes", between=(0, 1 << 50),
        help="Maximum size of the log of one step; the rest is dropped, and the last line says so; 0: no limit.")
    task_processes: int = _setting(4096, between=(0, 1 << 22),
        help="Maximum number of processes of one task, or of each container of one, threads counted; 0: no limit.")
    task_open_files: int = _setting(65536, between=(0, 1 << 30),
        help="Maximum number of open files of each process of a task; 0: the executor's.")
    task_file_bytes: int = _setting(0, unit="bytes", between=_BYTES,
        help="Maximum size of each file that a task writes; 0: no limit.")
    task_disk_bytes: int = _setting(0, unit="bytes", between=_BYTES,
        help="Maximum size of a task's files in its home and /tmp; it ends seconds after it takes more; 0: no limit. "
             "In containers only where the engine's storage has quotas.")
    task_memory_bytes: int = _setting(0, unit="bytes", between=_BYTES,
        help="Maximum memory of a task's processes, or of each container of one; on the host "
             "it needs a control group with the memory controller; 0: no limit.")
    lease_seconds: int = _setting(15, unit="seconds", components=_WITH_LEASES, between=(2, 3600),
        help="Time without a renewal after which an executor is lost; it ends its tasks a sixth of the time before. "
             "At least 2, the same in all processes.")
    stop_grace_seconds: float = _setting(5.0, unit="seconds", between=(0, 3600),
        help="Time between TERM and KILL when a task is stopped.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedRuns:
    """What is kept of the runs of each group root."""

    keep: int = _setting(0, between=(0, 1_000_000),
        help="Number of ended runs to keep of each project, or of each user's direct runs; 0: all.")
    age: str = _setting("never", help="Age at which an ended run is deleted, such as 90d or 36h; or `never`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedCaches:
    """What is kept of the caches."""

    age: str = _setting("7d", help="Age at which a cache is removed, or `never`.")
    size: str = _setting("",
        help="Size of all caches, such as 10GiB, above which the oldest are removed; none: no limit.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """What is kept, and how long. Ages count from the end of a run."""

    runs: RetainedRuns = field(default_factory=RetainedRuns)
    logs: str = _setting("30d", page="how-to/keep-the-disk-small.md",
        help="Age at which the logs of an ended run are removed; `never`: with the run.")
    archives: str = _setting("7d", help="Age at which the archives of an ended run are removed; `never`: with the run.")
    caches: RetainedCaches = field(default_factory=RetainedCaches)
    groups: dict[str, str] = field(default_factory=dict, metadata=_declaration(
        help="What differs for a project or user, such as `/project/web: runs.keep=10 logs=365d`."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process."""

    data_dir: Path = field(metadata=_declaration(commands="all", default_words="~/.local/share/runstream",
        help="The local service's data directory, one process each; `XDG_DATA_HOME` is respected."))
    file: Path | None = None
    """Where these settings were read from."""
    components: tuple[str, ...] = _setting(COMPONENTS, _RUNS,
        help="Components to run in this process, separated by commas.")
    namespace: str = _setting("runstream", _RUNS, commands="servers",
        help="First token of every NATS subject, unique to each deployment that shares a NATS account.")
    nats_url: str = _setting("", _SERVERS, commands="servers", schemes=("nats://", "tls://", "ws://", "wss://"),
        help="URL of NATS, nats://USER:PASSWORD@HOST:PORT, or several with commas; none: an embedded server.")
    database_url: str = _setting("", _SERVERS, commands="servers", components=_WITH_DATABASE,
        schemes=("postgresql://", "postgres://"),
        help="URL of Postgres, postgresql://USER:PASSWORD@HOST:PORT/DATABASE; none: an embedded server.")
    database_schema: str = _setting("runstream", _SERVERS, commands="servers", components=_WITH_DATABASE,
        help="Postgres schema for the tables: lower-case letters, digits and `_`.")
    partitions: int = _setting(4, _RUNS, between=(1, MAX_PARTITIONS),
        help=f"Number of partitions (independent streams) of the log, 1 to {MAX_PARTITIONS}; fixed when it is created.")
    replicas: int = _setting(1, _SERVERS, choices=(1, 3, 5),
        help="Number of NATS servers that keep each stream: 1, 3 or 5.")
    host: str = _setting("127.0.0.1", _HTTP, help="Address to listen on.")
    port: int = _setting(0, _HTTP, components=_GATEWAY, between=_PORTS,
        help="Port of the gateway; 0: the last one used, or any free port.")
    metrics_port: int = _setting(0, _HTTP, components=_WITHOUT_GATEWAY, between=_PORTS,
        help="Port of /healthz, /readyz and /metrics in a process without gateway; 0: any free port.")
    exposed_url: str = _setting("", _HTTP, components=_GATEWAY, schemes=("http://", "https://"),
        help="URL at which tasks and people reach the gateway; none: http://HOST:PORT.")
    git_folders: tuple[str, ...] = _setting((), components=_GATEWAY, page="reference/git.md",
        help="Folders whose repositories projects may name by their path; none: no paths.")
    git_networks: tuple[str, ...] = _setting((), components=_GATEWAY,
        help="Loopback and link-local networks whose repositories projects may name, such as 127.0.0.0/8.")
    git_repositories_dir: Path | None = _setting(None, components=_GATEWAY, page="reference/git.md",  # noqa: RUF009
        help="Directory of the repositories that users push to, shared by all gateways; none: in --data-dir.")
    git_anonymous_push: bool = _setting(False, components=_GATEWAY, page="reference/git.md",
        help="Whether anyone may push to the repositories of users without a token, as the model's own client does.")
    git_refs_age: str = _setting("30d", components=_GATEWAY,
        help="Age of a commit at which the refs that users pushed expire, such as 30d; or `never`.")
    token: str = _setting("", commands="all", components=_GATEWAY,
        help="Token of the API; none: made at the first start, kept in the data directory.")
    objects_dir: Path | None = _setting(None, _SERVERS, commands="storage",  # noqa: RUF009
        help="Directory for logs and archives, shared by executors and gateways; none: `objects` in --data-dir.")
    objects_url: str = _setting("", _SERVERS, commands="storage", page="reference/objects.md",
        help="Bucket to use instead: s3://BUCKET[/PREFIX][?endpoint=HOST:PORT&region=REGION&style=path&tls=off].")
    objects_access_key: str = _setting("",
        help="Access key of the bucket; none: AWS's own variables, or the machine's role.")
    objects_secret_key: str = _setting("", shown=False,
        help="Secret key of the bucket, given together with the access key.")
    secrets_key_file: Path | None = _setting(None, _SERVERS,  # noqa: RUF009
        components=("gateway", "executor"), page="how-to/secrets.md",
        help="File of the keys that seal and open secrets, shared by gateways and executors; "
             "none: `secrets.key` in the data directory, made by a gateway.")
    import_trusted_keys: tuple[str, ...] = _setting((), components=_GATEWAY, page="how-to/export-and-import.md",
        help="Files of public keys (PEM), the same for all gateways; with some, an import takes only snapshots signed "
             "with one of them.")
    member_adding: Literal["direct", "invitation"] = _setting("direct", components=_GATEWAY,
        help="How owners add members to an organization: directly, or by an invitation that the user accepts.")
    session_seconds: int = _setting(43_200, unit="seconds", components=_GATEWAY, between=(60, 31_536_000),
        help="Time after which a browser's session ends that is not used.")
    insecure_cookies: bool = _setting(False, components=_GATEWAY,
        help="Whether browsers send the cookies of sessions over plain HTTP, too; for a service without TLS.")
    cors_origins: tuple[str, ...] = _setting((), components=_GATEWAY,
        help="Origins of other web sites that may use the API in a browser, such as https://ci.example.com.")
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    log_level: Literal["debug", "info", "warning", "error"] = _setting("info", _WATCHING,
        help="Lowest level of messages to log.")
    log_format: Literal["console", "json"] = _setting("console", _WATCHING, help="Format of the messages.")
    detailed_errors: bool = _setting(False, commands="all",
        help="Show the whole chain of an error's causes with file and line.")
    otlp_endpoint: str = _setting("", _WATCHING, schemes=("http://", "https://"),
        help="Endpoint for traces and metrics (OTLP over HTTP), such as http://localhost:4318; none: nowhere.")
    wait_for_dependencies: str = _setting("", _SERVERS,
        help="How long to wait for NATS and Postgres at startup, such as 5m; 0s: not at all; none: without limit.")
    max_body_bytes: int = _setting(1 << 20, unit="bytes", components=_GATEWAY, between=(1024, 1 << 30),
        help="Maximum size of a request to the gateway; at least 1024.")
    max_connections: int = _setting(1024, components=_GATEWAY, between=(1, 32_768),
        help="Maximum number of the gateway's clients; at most half of the files that the process may open.")

    @property
    def public_url(self) -> str:
        """The URL at which tasks and people reach the gateway."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104  compared, not bound
        return self.exposed_url.rstrip("/") or f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def objects_path(self) -> Path:
        """Where the posix object storage is."""
        return self.objects_dir or self.data_dir / "objects"

    @property
    def secrets_key_path(self) -> Path:
        """Where the keys for secrets are."""
        return self.secrets_key_file or self.data_dir / "secrets.key"

# fmt: on
_Section = Settings | ExecutorSettings | RetentionSettings | RetainedRuns | RetainedCaches


def _declared(cls: type[_Section], section: str, components: tuple[str, ...]) -> Iterator[Setting]:
    kinds = get_type_hints(cls)
    for each in fields(cls):
        if (found := each.metadata.get("setting")) is not None:
            yield replace(
                found,
                key=f"{section}{each.name}",
                kind=kinds[each.name],
                default=None if each.default is MISSING else each.default,
                components=found.components or components,
            )


SETTINGS: Mapping[str, Setting] = {
    one.key: one
    for one in (
        *_declared(Settings, "", ()),
        *_declared(ExecutorSettings, "executor.", ("executor",)),
        *_declared(RetainedRuns, "retention.runs.", ("gateway", "scheduler")),
        *_declared(RetentionSettings, "retention.", ("gateway", "scheduler")),
        *_declared(RetainedCaches, "retention.caches.", ("gateway", "datamanager")),
    )
}
"""All settings by key."""
