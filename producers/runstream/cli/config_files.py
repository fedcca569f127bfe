"""Which configuration file a run is made of, and its text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runstream.cli.repository import repository_top
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
    """Return the file that was named, or the first in `folder` or above it in its repository.

    Raises NotExistError, BadRequestError.
    """
    path = given or _found(folder)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotExistError(
            f"there is no configuration file {path}",
            code="configDoesNotExist",
            hint="check the path, or leave it out: then .runstream/config.yml is looked for",
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
    """The first one in this folder, else in those above it up to the top of the repository."""
    top = repository_top(folder)
    for above in (folder, *folder.parents):
        for candidate in candidates():
            if (above / candidate).is_file():
                return Path(candidate) if above == Path.cwd() else above / candidate
        if above == top or top is None:
            break
    raise NotExistError(
        f"there is no configuration file in {folder}"
        + (f", or above it up to {top}" if top not in (None, folder) else ""),
        code="configDoesNotExist",
        hint="name one, or write a first one: `runstream init`",
    )


def _format(path: Path) -> ConfigName:
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    raise BadRequestError(
        f"{path} is no configuration file: its name says no format",
        code="configFormat",
        hint=f"use a name that ends with {', '.join(SUFFIXES)}",
    )
