"""Where each setting comes from: an option, else the environment, else the settings file, else its default.

Every value is checked, whoever gave it, and all problems are reported together.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from runstream.errors import BadRequestError, RunstreamError
from runstream.executor.sandbox import RESERVED_PLACES
from runstream.log.streams import require_namespace
from runstream.objects.s3_location import parse_location
from runstream.runconfig.amounts import parse_duration
from runstream.service.settings_file import SECTIONS, Given, read_settings_file
from runstream.settings import COMPONENTS, ExecutorSettings, Settings
from runstream.subjects import MAX_PARTITIONS

ENVIRONMENT_PREFIX = "RUNSTREAM_"
_OF_COMMANDS = frozenset({"RUNSTREAM_NATS_ADMIN_URL"})
"""Options of single commands: no settings, and no misspelt ones either."""
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
    """The settings of this process.

    `options` are those given on the command line by their setting's name; None is not given. Raises
    BadRequestError that names every wrong value, where it was given, and what is allowed.
    """
    given = [
        *(read_settings_file(file) if file is not None else ()),
        *_from_environment(environ),
        *(
            Given(key, value, f"--{key.removeprefix('executor.').replace('_', '-')}")
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
    # Imported here: the client is needed by nothing else of a service, and costs its start.
    from runstream.client.client import default_data_dir

    return default_data_dir(environ)


def _from_environment(environ: Mapping[str, str]) -> Iterable[Given]:
    """What the environment gives. Other names that begin alike are not ours to judge: tasks and clients have some."""
    for key in KEYS:
        name = f"{ENVIRONMENT_PREFIX}{key.replace('.', '_').upper()}"
        if environ.get(name):
            yield Given(key, environ[name], name, text=True)


def _checked(given: Given) -> object:
    """The value in its type. Raises ValueError or BadRequestError that says what is allowed."""
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


def _parsed(given: Given) -> object:
    """The value that a text of the environment stands for."""
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
    """What is wrong with values that are right one by one."""
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
