"""Which configuration file a run is made of, and its text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runstream.errors import BadRequestError, NotExistError
from runstream.evaluation import SUFFIXES, ConfigName, candidates
from runstream.evaluation.imports import gather_imports

MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file that was read."""

    path: Path
    name: ConfigName
    """Says its format."""
    content: str
    imports: dict[str, str]
    """What it may import: texts by their paths below its folder."""


def read_config(given: Path | None, folder: Path) -> ConfigFile:
    """The file that was named, or the first that is found below `folder`. Raises NotExistError, BadRequestError."""
    path = given or _found(folder)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotExistError(
            f"there is no configuration file {path}", code="configDoesNotExist", hint="name one that is there"
        ) from error
    except OSError as error:
        raise BadRequestError(
            f"the configuration file {path} cannot be read: {error.strerror or error}", code="configUnreadable"
        ) from error
    if len(content) > MAX_BYTES:
        raise BadRequestError(f"the configuration file {path} is larger than {MAX_BYTES} bytes", code="configTooLarge")
    try:
        name, text = _format(path), content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadRequestError(
            f"the configuration file {path} is no UTF-8 text (line {line})", code="configUnreadable"
        ) from error
    return ConfigFile(path, name, text, gather_imports(path, text) if name == "config.jsonnet" else {})


def _found(folder: Path) -> Path:
    for candidate in candidates():
        if (folder / candidate).is_file():
            return Path(candidate) if folder == Path.cwd() else folder / candidate
    raise NotExistError(
        f"there is no configuration file in {folder}",
        code="configDoesNotExist",
        hint="name one, or write .runstream/config.yml",
    )


def _format(path: Path) -> ConfigName:
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    raise BadRequestError(
        f"{path} is no configuration file: its name says no format",
        code="configFormat",
        hint=f"use a name that ends with {', '.join(SUFFIXES)}",
    )
