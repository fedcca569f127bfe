"""Which configuration file a run is made of, and its text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runstream.errors import BadRequestError, NotExistError

MAX_BYTES = 1 << 20
FOLDERS = (".runstream", ".agola")
NAMES = ("config.json", "config.yml")
"""In the order in which they are looked for."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file that was read."""

    path: Path
    name: Literal["config.json", "config.yml"]
    """Says its format."""
    content: str


def read_config(given: Path | None, folder: Path) -> ConfigFile:
    """The file that was named, or the first that is found below `folder`. Raises NotExistError, BadRequestError."""
    path = given or _found(folder)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotExistError(
            f"there is no configuration file {path}", code="configDoesNotExist", hint="--config names it"
        ) from error
    except OSError as error:
        raise BadRequestError(
            f"the configuration file {path} cannot be read: {error.strerror or error}", code="configUnreadable"
        ) from error
    if len(content) > MAX_BYTES:
        raise BadRequestError(f"the configuration file {path} is larger than {MAX_BYTES} bytes", code="configTooLarge")
    try:
        return ConfigFile(path, _format(path), content.decode())
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadRequestError(
            f"the configuration file {path} is no UTF-8 text (line {line})", code="configUnreadable"
        ) from error


def _found(folder: Path) -> Path:
    for directory in FOLDERS:
        for name in NAMES:
            if (folder / directory / name).is_file():
                return folder / directory / name
    raise NotExistError(
        f"there is no configuration file in {folder}",
        code="configDoesNotExist",
        hint="name one with --config, or write .runstream/config.yml",
    )


def _format(path: Path) -> Literal["config.json", "config.yml"]:
    match path.suffix:
        case ".json":
            return "config.json"
        case ".yml" | ".yaml":
            return "config.yml"
    raise BadRequestError(
        f"{path} is no configuration file: its name says no format",
        code="configFormat",
        hint="use a name that ends with .yml or .json",
    )
