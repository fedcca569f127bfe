"""What a settings file says, each value with the place where it says it; YAML (1.2) or TOML.

data_dir: /var/lib/runstream
components: [gateway, scheduler]
executor:
  active_tasks_limit: 4
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runstream.errors import BadRequestError

SECTIONS = ("executor",)
"""Settings that have settings of their own."""
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave for a setting, and where."""

    key: str
    """`port`, `executor.lease_seconds`."""
    value: object
    where: str
    """For people: `settings.yml line 3`, `RUNSTREAM_PORT`, `--port`."""
    text: bool = False
    """Whether it came as text that has to be parsed (environment), not as a typed value."""


def read_settings_file(path: Path) -> list[Given]:
    """All values of the file. Raises BadRequestError when it cannot be read or parsed."""
    try:
        content = path.read_bytes()[: _MAX_BYTES + 1]
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    if len(content) > _MAX_BYTES:
        raise _unreadable(path, "it is larger than 1 MiB")
    return list(_toml(path, text) if path.suffix == ".toml" else _yaml(path, text))


def _yaml(path: Path, text: str) -> Iterator[Given]:
    # Imported here: most processes have no file.
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


def _toml(path: Path, text: str) -> Iterator[Given]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(path, str(error)) from error
    yield from _flat(path, document)


def _flat(path: Path, document: Mapping[str, object], prefix: str = "") -> Iterator[Given]:
    for name, value in document.items():
        key = f"{prefix}{name}"
        if key in SECTIONS and isinstance(value, Mapping):
            yield from _flat(path, value, f"{key}.")
        else:
            yield Given(key, _plain(value), f"{path}{_line(document, name)}")


def _line(document: Mapping[str, object], name: str) -> str:
    places = getattr(document, "lc", None)  # YAML's maps have them, TOML's have not
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
