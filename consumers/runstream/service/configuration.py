"""Where each setting comes from: a command-line option, else the environment, else the settings file, else its default.

`runstream.settings.Settings` defines the settings, with their types and defaults. Environment variables and file keys
are derived from it; every value is checked the same way, and all problems are reported together. A settings file is
YAML (1.2) or TOML:

    data_dir: /var/lib/runstream
    components: [gateway, scheduler]
    executor:
      active_tasks_limit: 4

The option classes list the settings that commands accept as options; a field's docstring is its help text.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from cyclopts import Group, Parameter

from runstream.cli.connection import GlobalOptions
from runstream.errors import BadRequestError, RunstreamError
from runstream.executor.sandbox import RESERVED_PLACES
from runstream.log.streams import require_namespace
from runstream.objects.s3_location import parse_location
from runstream.runconfig.amounts import parse_duration
from runstream.settings import COMPONENTS, ExecutorSettings, Settings
from runstream.subjects import MAX_PARTITIONS

SECTIONS = ("executor",)
"""Settings that group further settings."""
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Assignment:
    """A value given for a setting, and where."""

    key: str
    """`port`, `executor.lease_seconds`."""
    value: object
    where: str
    """For people: `settings.yml line 3`, `RUNSTREAM_PORT`, `--port`."""
    text: bool = False
    """Whether it is text that has to be parsed (from the environment), not a typed value."""


def read_settings_file(path: Path) -> list[Assignment]:
    """Return all values of the file. Raise BadRequestError when it cannot be read or parsed."""
    try:
        content = path.read_bytes()[: _MAX_BYTES + 1]
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    if len(content) > _MAX_BYTES:
        raise _unreadable(path, "it is larger than 1 MiB")
    return list(_toml(path, text) if path.suffix == ".toml" else _yaml(path, text))


def _yaml(path: Path, text: str) -> Iterator[Assignment]:
    # Most processes have no file.
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import MarkedYAMLError

    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise _unreadable(path, f"{place}{error.problem or 'not valid YAML'}") from error
    if document is None:
        return
    if not isinstance(document, CommentedMap):
        raise _unreadable(path, "it is not a map of settings")
    yield from _flat(path, document)


def _toml(path: Path, text: str) -> Iterator[Assignment]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(path, str(error)) from error
    yield from _flat(path, document)


def _flat(path: Path, document: Mapping[str, object], prefix: str = "") -> Iterator[Assignment]:
    for name, value in document.items():
        key = f"{prefix}{name}"
        if key in SECTIONS and isinstance(value, Mapping):
            yield from _flat(path, value, f"{key}.")
        else:
            yield Assignment(key, _plain(value), f"{path}{_line(document, name)}")


def _line(document: Mapping[str, object], name: str) -> str:
    places = getattr(document, "lc", None)  # only the maps of YAML have them
    return f" line {places.key(name)[0] + 1}" if places is not None else ""


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _unreadable(path: Path, why: str) -> BadRequestError:
    return BadRequestError(
        f"the settings file {path} cannot be read: {why}",
        code="invalidSettings",
        details={"file": str(path)},
        hint="a settings file is YAML or TOML; docs/reference/settings.md names all settings",
    )


ENVIRONMENT_PREFIX = "RUNSTREAM_"
_OF_COMMANDS = frozenset({"RUNSTREAM_NATS_ADMIN_URL"})
"""Options of single commands, which are no settings."""
_HINTS: dict[str, Any] = {
    name: kind for name, kind in get_type_hints(Settings).items() if name in {f.name for f in fields(Settings)}
}
_HINTS |= {f"executor.{name}": kind for name, kind in get_type_hints(ExecutorSettings).items()}
KEYS = tuple(sorted(set(_HINTS) - {*SECTIONS, "file"}))
"""All settings by name."""

_RANGES: Mapping[str, tuple[float, float]] = {
    "partitions": (1, MAX_PARTITIONS),
    "port": (0, 65535),
    "metrics_port": (0, 65535),
    "max_body_bytes": (1024, 1 << 30),
    "max_connections": (1, 32_768),
    "executor.active_tasks_limit": (0, 10_000),
    "executor.lease_seconds": (2, 3600),
    "executor.stop_grace_seconds": (0, 3600),
    "executor.step_log_bytes": (0, 1 << 50),
    "executor.task_processes": (0, 1 << 22),
    "executor.task_open_files": (0, 1 << 30),
    "executor.task_file_bytes": (0, 1 << 60),
    "executor.task_disk_bytes": (0, 1 << 60),
    "executor.task_memory_bytes": (0, 1 << 60),
}
_IN_WORDS: Mapping[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "a list of texts",
    dict: "a mapping of names to texts",
}
_URLS: Mapping[str, tuple[str, ...]] = {
    "nats_url": ("nats://", "tls://", "ws://", "wss://"),
    "database_url": ("postgresql://", "postgres://"),
    "otlp_endpoint": ("http://", "https://"),
}


def load_settings(options: Mapping[str, object], environ: Mapping[str, str], file: Path | None) -> Settings:
    """Return the settings of this process.

    `options` are those of the command line, by the setting's name; None is not given. Raise BadRequestError that names
    every wrong value, where it was given, and what is allowed.
    """
    given = [
        *(read_settings_file(file) if file is not None else ()),
        *_from_environment(environ),
        *(
            Assignment(key, value, f"--{key.removeprefix('executor.').replace('_', '-')}")
            for key, value in options.items()
            if value is not None
        ),
    ]
    problems: list[str] = []
    values: dict[str, object] = {}
    for each in given:
        try:
            values[each.key] = _checked(each)
        except (ValueError, RunstreamError) as error:
            problems.append(f"{each.where}: {error}")
    problems += _contradictions(values)
    if problems:
        raise BadRequestError(
            "; ".join(problems),
            code="invalidSettings",
            details={"problems": problems},
            hint=_hint(problems),
        )
    return _built({**values, "file": file.resolve() if file is not None else None}, environ)


def _built(values: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    executor = {k.removeprefix("executor."): v for k, v in values.items() if k.startswith("executor.")}
    plain: dict[str, Any] = {k: v for k, v in values.items() if not k.startswith("executor.")}
    data_dir = Path(plain.pop("data_dir", None) or _default_data_dir(environ)).expanduser().resolve()
    return Settings(data_dir=data_dir, executor=msgspec.convert(executor, ExecutorSettings), **plain)


def _default_data_dir(environ: Mapping[str, str]) -> Path:
    # A service needs the client for nothing else, and importing it is slow.
    from runstream.client.client import default_data_dir

    return default_data_dir(environ)


def _from_environment(environ: Mapping[str, str]) -> Iterable[Assignment]:
    """Yield the settings in the environment. Other RUNSTREAM_ names belong to tasks and clients."""
    for key in KEYS:
        name = f"{ENVIRONMENT_PREFIX}{key.replace('.', '_').upper()}"
        if environ.get(name):
            yield Assignment(key, environ[name], name, text=True)


def _checked(given: Assignment) -> object:
    """Return the value in its type. Raise ValueError or BadRequestError that says what is allowed."""
    if given.key not in KEYS:
        near = difflib.get_close_matches(given.key, KEYS, 1)
        raise ValueError(f"unknown setting {given.key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    value = _parsed(given) if given.text else given.value
    if isinstance(value, Path):
        return value
    try:
        value = msgspec.convert(value, _HINTS[given.key], strict=not given.text, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ValueError(_wrong_type(given.key, value)) from error
    for check in (
        _check_range,
        _check_url,
        _check_objects_url,
        _check_name,
        _check_components,
        _check_places,
        _check_wait,
    ):
        check(given.key, value)
    return value


def _wrong_type(key: str, value: object) -> str:
    kind = _HINTS[key]
    if get_origin(kind) is Literal:
        return f"{key} must be one of {', '.join(get_args(kind))} (got {value!r})"
    return f"{key} must be {_IN_WORDS.get(get_origin(kind) or kind, 'of another type')} (got {value!r})"


def _parsed(given: Assignment) -> object:
    """Return the value of a text from the environment."""
    text = str(given.value)
    if _HINTS[given.key] == tuple[str, ...]:
        return [part.strip() for part in text.split(",") if part.strip()]
    if given.key == "executor.labels":
        return dict(_label(part) for part in text.split(",") if part)
    return text


def _label(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"{text!r} is not a label; write NAME=VALUE,NAME=VALUE")
    return name, value


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError("expected a path")


def _check_range(key: str, value: object) -> None:
    low, high = _RANGES.get(key, (0, 0))
    if high and isinstance(value, (int, float)) and not low <= value <= high:
        raise ValueError(f"{key} must be between {low} and {high} (got {value})")
    if key == "replicas" and value not in (1, 3, 5):
        raise ValueError(f"replicas must be 1, 3 or 5 (got {value})")


def _check_url(key: str, value: object) -> None:
    schemes = _URLS.get(key, ())
    if schemes and value and not str(value).startswith(schemes):
        raise ValueError(f"{key} is not a URL that begins with {' or '.join(schemes)}")


def _check_objects_url(key: str, value: object) -> None:
    if key == "objects_url" and value:
        parse_location(str(value))


def _check_wait(key: str, value: object) -> None:
    if key == "wait_for_dependencies" and value:
        try:
            parse_duration(str(value))
        except RunstreamError as error:
            raise ValueError(f"wait_for_dependencies must be a duration such as 5m or 30s (got {value!r})") from error


def _contradictions(values: Mapping[str, object]) -> Iterable[str]:
    """Yield contradictions between values that are each valid."""
    if values.get("objects_dir") and values.get("objects_url"):
        yield "objects_dir and objects_url are both given; objects are kept in one place"
    if bool(values.get("objects_access_key")) != bool(values.get("objects_secret_key")):
        yield "objects_access_key and objects_secret_key are given together, or neither of them"


def _check_name(key: str, value: object) -> None:
    if key == "namespace":
        require_namespace(str(value))
    if key == "database_schema" and not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", str(value)):
        raise ValueError("database_schema is not valid; use lower-case letters, digits and '_'")


def _check_components(key: str, value: object) -> None:
    if key != "components" or not isinstance(value, tuple):
        return
    unknown = [name for name in value if name not in COMPONENTS]
    choices = f"(choose from {', '.join(COMPONENTS)})"
    if unknown:
        kind = "component" if len(unknown) == 1 else "components"
        raise ValueError(f"unknown {kind} {', '.join(map(repr, unknown))} {choices}")
    if not value:
        raise ValueError(f"components must name at least one {choices}")


def _check_places(key: str, value: object) -> None:
    if key not in ("executor.sandbox_readonly", "executor.sandbox_writable") or not isinstance(value, tuple):
        return
    for place in value:
        if not place.startswith("/") or ".." in place.split("/"):
            raise ValueError(f"{key} has {place!r}; write absolute paths")
        if os.path.normpath(place) in RESERVED_PLACES:
            raise ValueError(f"{key} has {place!r}, of which a sandbox has its own; name what is below it")


def _hint(problems: Iterable[str]) -> str:
    if any("unknown setting" in problem and "did you mean" not in problem for problem in problems):
        return f"the settings are {', '.join(KEYS)}"
    return "`runstream serve --help` shows the settings that have an option"


_WHAT = Group("What runs", sort_key=1)
_SERVERS = Group("Servers (embedded ones are started where no URL is given)", sort_key=2)
_HTTP = Group("HTTP", sort_key=3)
_EXECUTOR = Group("Executor", sort_key=4)
_WATCHING = Group("Watching", sort_key=5)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """The options of commands that use the servers; None is not given: environment, file or default apply."""

    config: Annotated[Path | None, Parameter(group=_WHAT, env_var="RUNSTREAM_CONFIG")] = None
    """A settings file (YAML or TOML); options and RUNSTREAM_* variables take precedence over it."""
    namespace: Annotated[str | None, Parameter(group=_WHAT)] = None
    """First token of every NATS subject, unique to each deployment that shares a NATS account. Default: runstream."""
    nats_url: Annotated[str | None, Parameter(group=_SERVERS)] = None
    """URL of the NATS server, nats://USER:PASSWORD@HOST:PORT; several URLs are separated by commas."""
    database_url: Annotated[str | None, Parameter(group=_SERVERS)] = None
    """URL of the Postgres database, postgresql://USER:PASSWORD@HOST:PORT/DATABASE."""
    database_schema: Annotated[str | None, Parameter(group=_SERVERS)] = None
    """Postgres schema for the tables. Default: runstream."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StorageOptions(ServerOptions):
    """The options of commands that use the servers and the object storage."""

    objects_dir: Annotated[Path | None, Parameter(group=_SERVERS)] = None
    """Directory for logs and archives, shared by all executors and gateways of a service. Default: in the data dir."""
    objects_url: Annotated[str | None, Parameter(group=_SERVERS)] = None
    """Bucket to use instead: s3://BUCKET[/PREFIX][?endpoint=HOST:PORT&region=REGION&style=path&tls=off]."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServeOptions(StorageOptions):
    """The options of `runstream serve`."""

    components: Annotated[str | None, Parameter(group=_WHAT)] = None
    """Components to run here, separated by commas: gateway, scheduler, executor, datamanager. Default: all."""
    partitions: Annotated[int | None, Parameter(group=_WHAT)] = None
    """Number of partitions (independent streams) of the log; fixed when it is created. Default: 4."""
    secrets_key_file: Annotated[Path | None, Parameter(group=_SERVERS)] = None
    """File of the keys for secrets, shared by all gateways and executors of a service. Default: in the data dir."""
    replicas: Annotated[int | None, Parameter(group=_SERVERS)] = None
    """Number of NATS servers that keep each stream: 1, 3 or 5. Default: 1."""
    wait_for_dependencies: Annotated[str | None, Parameter(group=_SERVERS)] = None
    """How long to wait for NATS and Postgres at startup, such as 5m; 0s does not wait. Default: no limit."""
    host: Annotated[str | None, Parameter(group=_HTTP)] = None
    """Address to listen on. Default: 127.0.0.1."""
    port: Annotated[int | None, Parameter(group=_HTTP)] = None
    """Port of the gateway. Default: the last one used, or any free port."""
    metrics_port: Annotated[int | None, Parameter(group=_HTTP)] = None
    """Port for /healthz, /readyz and /metrics when this process has no gateway. Default: any free port."""
    driver: Annotated[Literal["process", "noop"] | None, Parameter(group=_EXECUTOR)] = None
    """How to run tasks: as processes, or not at all (for tests). Default: process."""
    active_tasks_limit: Annotated[int | None, Parameter(group=_EXECUTOR)] = None
    """Maximum number of tasks that this executor runs at once; 0 for no limit. Default: 2."""
    sandbox: Annotated[Literal["auto", "require", "off"] | None, Parameter(group=_EXECUTOR)] = None
    """Sandbox for host tasks: used where available, required (tasks fail without one), or off. Default: auto."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, Parameter(group=_WATCHING)] = None
    """Default: info."""
    log_format: Annotated[Literal["console", "json"] | None, Parameter(group=_WATCHING)] = None
    """Default: console."""
    otlp_endpoint: Annotated[str | None, Parameter(group=_WATCHING)] = None
    """Endpoint for traces and metrics (OTLP over HTTP), such as http://localhost:4318. Default: none."""


_OF_EXECUTOR = ("driver", "active_tasks_limit", "sandbox")


def settings_of(options: ServerOptions, said: GlobalOptions) -> Settings:
    """Return the settings of a command. Raise BadRequestError that names every wrong value."""
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
