"""The source of each setting: a command-line option, else the environment, else the settings file, else its default.

`runstream.settings` declares them. Every value is checked the same way, and all problems are reported together. A
settings file is YAML (1.2) or TOML:

    data_dir: /var/lib/runstream
    components: [gateway, scheduler]
    executor:
      active_tasks_limit: 4
    retention:
      runs: {keep: 100}
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar, cast, get_args, get_origin

import msgspec
from cyclopts import Group, Parameter, Token

from runstream.cli.connection import global_options
from runstream.errors import BadRequestError, RunstreamError
from runstream.executor.sandbox import RESERVED_PLACES
from runstream.log.streams import require_namespace
from runstream.maintenance.request import require_service
from runstream.objects.s3_location import parse_location
from runstream.policies import parse_age, parse_size, policies_of
from runstream.runconfig.amounts import parse_duration
from runstream.settings import (
    COMPONENTS,
    OPTION_GROUPS,
    SECTIONS,
    SETTINGS,
    ExecutorSettings,
    RetentionSettings,
    Setting,
    Settings,
)


def _service_of(_type: object, tokens: Sequence[Token]) -> str:
    """Return the service that a word of the command line names. Raises ValueError, which names the choices."""
    try:
        return require_service(tokens[0].value)
    except BadRequestError as error:
        raise ValueError(f'"{tokens[0].value}" is none of "runs", "config"') from error


Service: TypeAlias = Annotated[Literal["runs", "config"], Parameter(converter=_service_of)]
OfService = Annotated[Service, Parameter(help="The service of the log: runs, or config (users, projects, secrets).")]

if TYPE_CHECKING:
    from runstream.runconfig.nodes import MappingNode

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
    """True for text that must be parsed (from the environment), False for a typed value."""


def read_settings_file(path: Path) -> list[Assignment]:
    """Return all values of the file. Raise BadRequestError when it cannot be read or parsed."""
    try:
        content = path.read_bytes()[: _MAX_BYTES + 1]
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(path, "it is not UTF-8 text") from error
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    if len(content) > _MAX_BYTES:
        raise _unreadable(path, "it is larger than 1 MiB")
    return list(_toml(path, text) if path.suffix == ".toml" else _yaml(path, content))


def _yaml(path: Path, text: bytes) -> Iterator[Assignment]:
    # Most processes have no file, and need none of this.
    from runstream.runconfig.nodes import MappingNode, value_of
    from runstream.runconfig.problems import ConfigError
    from runstream.runconfig.reading import read_nodes

    try:
        document = read_nodes(text, str(path))
    except ConfigError as error:
        problem = error.problems[0]
        where = f"line {problem.line}: " if problem.line else ""
        raise _unreadable(path, where + problem.message) from error
    if document is None:
        return
    if not isinstance(document, MappingNode):
        raise _unreadable(path, "it is not a map of settings")
    yield from _flat(path, value_of(document), document)


def _toml(path: Path, text: str) -> Iterator[Assignment]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(path, str(error)) from error
    yield from _flat(path, document)


def _flat(
    path: Path, document: Mapping[str, Any], node: MappingNode | None = None, prefix: str = ""
) -> Iterator[Assignment]:
    """Yield the values of a map and of its sections; `node` has the lines of a YAML file."""
    for name, value in document.items():
        key = f"{prefix}{name}"
        if key in SECTIONS and isinstance(value, Mapping):
            section = node.entries[name] if node is not None else None
            yield from _flat(path, value, cast("MappingNode | None", section), f"{key}.")
        else:
            yield Assignment(key, value, f"{path} line {node.lines[name]}" if node is not None else str(path))


def _unreadable(path: Path, why: str) -> BadRequestError:
    return BadRequestError(
        f"the settings file {path} cannot be read: {why}",
        code="invalidSettings",
        details={"file": str(path)},
        hint="a settings file is YAML or TOML; docs/reference/settings.md names all settings",
    )


KEYS = tuple(sorted(SETTINGS))
"""All settings by name."""
_IN_WORDS: Mapping[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "a list of texts",
    dict: "a mapping of names to texts",
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
            Assignment(key, value, SETTINGS[key].option if key in SETTINGS else key)
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
    plain = _nested(values)
    executor = msgspec.convert(plain.pop("executor", {}), ExecutorSettings)
    retention = msgspec.convert(plain.pop("retention", {}), RetentionSettings)
    data_dir = plain.pop("data_dir", None)
    if not data_dir:
        # A service needs the client for nothing else, and importing it is slow.
        from runstream.client.client import default_data_dir

        data_dir = default_data_dir(environ)
    return Settings(
        data_dir=Path(data_dir).expanduser().resolve(),
        executor=executor,
        retention=retention,
        file=file.resolve() if file is not None else None,
        **plain,
    )


def _nested(values: Mapping[str, object]) -> dict[str, Any]:
    """Return values by key as sections within sections."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        into = nested
        for section in sections:
            into = into.setdefault(section, {})
        into[name] = value
    return nested


def _from_environment(environ: Mapping[str, str]) -> Iterable[Assignment]:
    """Yield the settings in the environment. Other RUNSTREAM_ names belong to tasks and clients."""
    for setting in map(SETTINGS.__getitem__, KEYS):
        if environ.get(setting.variable):
            yield Assignment(setting.key, environ[setting.variable], setting.variable, text=True)


def _checked(given: Assignment) -> object:
    """Return the value in its type. Raise ValueError or BadRequestError that says what is allowed."""
    setting = SETTINGS.get(given.key)
    if setting is None:
        near = difflib.get_close_matches(given.key, KEYS, 1)
        raise ValueError(f"unknown setting {given.key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    value = _parsed(setting, str(given.value)) if given.text else given.value
    if isinstance(value, Path):
        return value
    try:
        value = msgspec.convert(value, setting.kind, strict=not given.text, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ValueError(_wrong_type(setting, value)) from error
    _require_bounds(setting, value)
    if (check := _CHECKS.get(given.key)) is not None:
        check(given.key, value)
    return value


def _wrong_type(setting: Setting, value: object) -> str:
    kind = setting.kind
    if get_origin(kind) is Literal:
        return f"{setting.key} must be one of {', '.join(get_args(kind))} (got {value!r})"
    return f"{setting.key} must be {_IN_WORDS.get(get_origin(kind) or kind, 'of another type')} (got {value!r})"


def _parsed(setting: Setting, text: str) -> object:
    """Return the value of a text from the environment."""
    if setting.kind == tuple[str, ...]:
        return [part.strip() for part in text.split(",") if part.strip()]
    if setting.kind == dict[str, str]:
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


def _require_bounds(setting: Setting, value: object) -> None:
    if setting.between is not None and isinstance(value, (int, float)):
        low, high = setting.between
        if not low <= value <= high:
            raise ValueError(f"{setting.key} must be between {low} and {high} (got {value})")
    if setting.choices and value not in setting.choices:
        *others, last = setting.choices
        raise ValueError(f"{setting.key} must be {', '.join(map(str, others))} or {last} (got {value})")
    if setting.schemes and value and not str(value).startswith(setting.schemes):
        raise ValueError(f"{setting.key} is not a URL that begins with {' or '.join(setting.schemes)}")


def _contradictions(values: Mapping[str, object]) -> Iterable[str]:
    """Yield contradictions between values that are each valid."""
    if values.get("objects_dir") and values.get("objects_url"):
        yield "objects_dir and objects_url are both given; objects are kept in one place"
    if bool(values.get("objects_access_key")) != bool(values.get("objects_secret_key")):
        yield "objects_access_key and objects_secret_key are given together, or neither of them"


def _check_schema(_key: str, value: Any) -> None:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value):
        raise ValueError("database_schema is not valid; use lower-case letters, digits and '_'")


def _check_wait(_key: str, value: Any) -> None:
    if value:
        try:
            parse_duration(value)
        except RunstreamError as error:
            raise ValueError(f"wait_for_dependencies must be a duration such as 5m or 30s (got {value!r})") from error


def _check_components(_key: str, value: Any) -> None:
    unknown = [name for name in value if name not in COMPONENTS]
    choices = f"(choose from {', '.join(COMPONENTS)})"
    if unknown:
        kind = "component" if len(unknown) == 1 else "components"
        raise ValueError(f"unknown {kind} {', '.join(map(repr, unknown))} {choices}")
    if not value:
        raise ValueError(f"components must name at least one {choices}")


def _check_places(key: str, value: Any) -> None:
    for place in value:
        if not place.startswith("/") or ".." in place.split("/"):
            raise ValueError(f"{key} has {place!r}; write absolute paths")
        if os.path.normpath(place) in RESERVED_PLACES:
            raise ValueError(f"{key} has {place!r}, of which a sandbox has its own; name what is below it")


def _check_age(_key: str, value: Any) -> None:
    parse_age(value)


def _check_size(_key: str, value: Any) -> None:
    parse_size(value)


def _check_groups(_key: str, value: Any) -> None:
    policies_of(RetentionSettings(groups=value))


_CHECKS: Mapping[str, Callable[[str, Any], object]] = {
    "namespace": lambda _, value: require_namespace(value),
    "database_schema": _check_schema,
    "objects_url": lambda _, value: value and parse_location(value),
    "wait_for_dependencies": _check_wait,
    "components": _check_components,
    "retention.runs.age": _check_age,
    "retention.logs": _check_age,
    "retention.archives": _check_age,
    "retention.caches.age": _check_age,
    "retention.caches.size": _check_size,
    "retention.groups": _check_groups,
    "executor.sandbox_readonly": _check_places,
    "executor.sandbox_writable": _check_places,
}
"""Checks of single settings, beyond type, range and scheme."""


def _hint(problems: Iterable[str]) -> str:
    if any("unknown setting" in problem and "did you mean" not in problem for problem in problems):
        return f"the settings are {', '.join(KEYS)}"
    return "`runstream serve --help` shows the settings that have an option"


_GROUPS = {heading: Group(heading, sort_key=number) for number, heading in enumerate(OPTION_GROUPS, 1)}
T = TypeVar("T")


def _with_options(commands: str) -> Callable[[type[T]], type[T]]:
    """Return a decorator that adds a field for each setting that these commands have an option for."""

    def add(cls: type[T]) -> type[T]:
        for setting in SETTINGS.values():
            if setting.group and setting.commands == commands:
                default = f" Default: {setting.default_text}." if setting.default_text else ""
                parameter = Parameter(group=_GROUPS[setting.group], help=setting.help + default)
                # A list is one text on the command line.
                kind = str if get_origin(setting.kind) is tuple else setting.kind
                cls.__annotations__[setting.name] = Annotated[kind | None, parameter]
                setattr(cls, setting.name, None)
        return cls

    return add


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
@_with_options("servers")
class ServerOptions:
    """The options of commands that use the servers; None is not given: environment, file or default apply."""

    config: Annotated[Path | None, Parameter(group=_GROUPS[OPTION_GROUPS[0]], env_var="RUNSTREAM_CONFIG")] = None
    """A settings file (YAML or TOML); options and RUNSTREAM_* variables take precedence over it."""

    def given(self) -> dict[str, object]:
        """Return the settings that have a value, by key."""
        found = {each.key: getattr(self, each.name, None) for each in SETTINGS.values() if each.group}
        return {key: value for key, value in found.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
@_with_options("storage")
class StorageOptions(ServerOptions):
    """The options of commands that use the servers and the object storage."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
@_with_options("serve")
class ServeOptions(StorageOptions):
    """The options of `runstream serve`."""


def settings_of(options: ServerOptions | None = None) -> Settings:
    """Return the settings of a command, with its global options. Raise BadRequestError that names every wrong value."""
    options, shared = options or ServerOptions(), global_options()
    before = {
        "data_dir": shared.data_dir,
        "token": shared.token,
        "detailed_errors": shared.detailed_errors or None,
    }
    given = {key: str(value) if isinstance(value, Path) else value for key, value in (options.given() | before).items()}
    if "components" in given:
        given["components"] = [part.strip() for part in str(given["components"]).split(",")]
    return load_settings(given, os.environ, options.config)
