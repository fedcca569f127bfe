"""The options of commands that work with the servers, and the settings that come of them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from runstream.cli.connection import GlobalOptions
from runstream.service.configuration import load_settings
from runstream.settings import Settings

_WHAT = Group("What runs", sort_key=1)
_SERVERS = Group("Servers (embedded ones are started where no URL is given)", sort_key=2)
_HTTP = Group("HTTP", sort_key=3)
_EXECUTOR = Group("Executor", sort_key=4)
_WATCHING = Group("Watching", sort_key=5)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Which servers, and what on them; None is not given, so that environment, file and default decide."""

    config: Annotated[Path | None, Parameter(group=_WHAT, env_var="RUNSTREAM_CONFIG")] = None
    """A settings file (YAML or TOML); options and RUNSTREAM_* variables take precedence over it."""
    namespace: Annotated[str | None, Parameter(group=_WHAT)] = None
    """First token of every NATS subject; deployments that share a NATS account differ in it. Default: runstream."""
    nats_url: Annotated[str | None, Parameter(group=_SERVERS)] = None
    """nats://USER:PASSWORD@HOST:PORT, several separated by commas."""
    database_url: Annotated[str | None, Parameter(group=_SERVERS)] = None
    """postgresql://USER:PASSWORD@HOST:PORT/DATABASE."""
    database_schema: Annotated[str | None, Parameter(group=_SERVERS)] = None
    """The schema of the tables. Default: runstream."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StorageOptions(ServerOptions):
    """Which servers, and which object storage."""

    objects_dir: Annotated[Path | None, Parameter(group=_SERVERS)] = None
    """Where logs and archives are kept; executors and gateways of one service share it. Default: in the data dir."""
    objects_url: Annotated[str | None, Parameter(group=_SERVERS)] = None
    """s3://BUCKET[/PREFIX][?endpoint=HOST:PORT&region=REGION&style=path&tls=off]: keep them in a bucket instead."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServeOptions(StorageOptions):
    """What can be set for a process that serves."""

    components: Annotated[str | None, Parameter(group=_WHAT)] = None
    """Which parts run in this process, separated by commas: gateway, scheduler, executor, datamanager. Default: all."""
    partitions: Annotated[int | None, Parameter(group=_WHAT)] = None
    """Number of partitions (independent streams) of the log; fixed when it is created. Default: 4."""
    secrets_key_file: Annotated[Path | None, Parameter(group=_SERVERS)] = None
    """The keys for secrets; gateways and executors of one service share it. Default: in the data dir."""
    replicas: Annotated[int | None, Parameter(group=_SERVERS)] = None
    """How many servers of a NATS cluster keep each stream: 1, 3 or 5. Default: 1."""
    wait_for_dependencies: Annotated[str | None, Parameter(group=_SERVERS)] = None
    """How long to wait for a NATS or Postgres that is away, such as 5m; 0s not at all. Default: for ever."""
    host: Annotated[str | None, Parameter(group=_HTTP)] = None
    """Where to listen. Default: 127.0.0.1."""
    port: Annotated[int | None, Parameter(group=_HTTP)] = None
    """The gateway's port. Default: the one used last, or any free one."""
    metrics_port: Annotated[int | None, Parameter(group=_HTTP)] = None
    """Port for /healthz, /readyz and /metrics when this process has no gateway. Default: any free one."""
    driver: Annotated[Literal["process", "noop"] | None, Parameter(group=_EXECUTOR)] = None
    """How tasks are run. Default: process."""
    active_tasks_limit: Annotated[int | None, Parameter(group=_EXECUTOR)] = None
    """How many tasks this executor runs at once; 0 for no limit. Default: 2."""
    sandbox: Annotated[Literal["auto", "require", "off"] | None, Parameter(group=_EXECUTOR)] = None
    """Whether host tasks run in a sandbox: where that works, always (or not at all), never. Default: auto."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, Parameter(group=_WATCHING)] = None
    """Default: info."""
    log_format: Annotated[Literal["console", "json"] | None, Parameter(group=_WATCHING)] = None
    """Default: console."""
    otlp_endpoint: Annotated[str | None, Parameter(group=_WATCHING)] = None
    """Where traces and metrics are sent (OTLP over HTTP), such as http://localhost:4318. Default: nowhere."""


_OF_EXECUTOR = ("driver", "active_tasks_limit", "sandbox")


def settings_of(options: ServerOptions, said: GlobalOptions) -> Settings:
    """The settings that a command works with. Raises BadRequestError that names every wrong value."""
    given = {
        f"executor.{name}" if name in _OF_EXECUTOR else name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
        if name != "config"
    }
    given["components"] = _split(given.get("components"))
    given["data_dir"] = str(said.data_dir) if said.data_dir is not None else None
    given["token"] = said.token
    given["detailed_errors"] = said.detailed_errors or None
    return load_settings(given, os.environ, options.config)


def _split(components: object) -> list[str] | None:
    return None if components is None else [part.strip() for part in str(components).split(",")]
