"""The inputs of a run as options name them: the configuration file, its variables and secrets."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from runstream.cli.repository import repository_top
from runstream.errors import BadRequestError, NotExistError
from runstream.evaluation.files import SUFFIXES, ConfigName, candidates, gather_imports
from runstream.limits import MAX_FILE_BYTES

if TYPE_CHECKING:  # HTTP is imported by the commands that talk to a service; the others do not wait for it
    from runstream.client import Inputs

Flag: TypeAlias = Annotated[bool, Parameter(negative="")]
"""An option without a value, and without a `--no-` form."""
Texts: TypeAlias = Annotated[list[str] | None, Parameter(negative="")]
Paths: TypeAlias = Annotated[list[Path] | None, Parameter(negative="")]
ConfigPath: TypeAlias = Annotated[
    Path | None,
    Parameter(
        name=["--config", "-c"],
        help="The configuration file. Default: the first one found in .runstream or .agola.",
    ),
]


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file with its content."""

    path: Path
    name: ConfigName
    """Determines the format."""
    content: str
    imports: dict[str, str]
    """The files that it may import, by path below its folder."""


def read_config(given: Path | None, folder: Path) -> ConfigFile:
    """Read the given file, or the first one found in `folder` or above it in its repository.

    Raises NotExistError, BadRequestError.
    """
    path = given or _require_config(folder)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
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
    if len(content) > MAX_FILE_BYTES:
        raise BadRequestError(
            f"the configuration file {path} is larger than {MAX_FILE_BYTES} bytes", code="configTooLarge"
        )
    try:
        name, text = _config_format(path), content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadRequestError(
            f"the configuration file {path} is not UTF-8 text (line {line})", code="configUnreadable"
        ) from error
    return ConfigFile(path, name, text, gather_imports(path, text) if name == "config.jsonnet" else {})


def _require_config(folder: Path) -> Path:
    """Return the first configuration file in this folder, else in those above it up to the top of the repository."""
    if (found := find_config(folder)) is not None:
        return found
    top = repository_top(folder)
    raise NotExistError(
        f"there is no configuration file in {folder}"
        + (f", or above it up to {top}" if top not in (None, folder) else ""),
        code="configDoesNotExist",
        hint="name one, or write a first one: `runstream init`",
    )


def find_config(folder: Path) -> Path | None:
    """Return the first configuration file in this folder or above it, up to the top of the repository; else None."""
    top = repository_top(folder)
    for above in (folder, *folder.parents):
        for candidate in candidates():
            if (above / candidate).is_file():
                return Path(candidate) if above == Path.cwd() else above / candidate
        if above == top or top is None:
            break
    return None


def _config_format(path: Path) -> ConfigName:
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    raise BadRequestError(
        f"{path} is not a configuration file: its suffix names no format",
        code="configFormat",
        hint=f"use a name that ends with {', '.join(SUFFIXES)}",
    )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """Variables and secrets."""

    var: Texts = None
    """NAME=VALUE for `from_variable` in the file; repeatable. Not for secrets."""
    var_file: Paths = None
    """A YAML or JSON file of variables; repeatable. Later files win over earlier ones, and --var wins over all
    files."""
    secret_file: Paths = None
    """A YAML or JSON file of secrets; repeatable. Secrets are encrypted before they are stored, and are never shown."""

    def __bool__(self) -> bool:
        """Return whether any option is given."""
        return bool(self.var or self.var_file or self.secret_file)

    @property
    def variables(self) -> dict[str, str]:
        """The variables of --var. Raises BadRequestError for one that is not NAME=VALUE."""
        return pairs(self.var or (), "--var")

    @property
    def variable_files(self) -> list[tuple[str, str]]:
        """Names and texts. Raises BadRequestError for one that cannot be read."""
        return read_files(self.var_file)

    @property
    def secret_files(self) -> list[tuple[str, str]]:
        """Names and texts. Raises BadRequestError for one that cannot be read."""
        return read_files(self.secret_file)

    def inputs(self, file: ConfigFile) -> Inputs:
        """Return the inputs for the service; warn of secret files that others can read. Raises BadRequestError."""
        from runstream.client import Inputs

        warn_of_readers(self.secret_file)
        return Inputs(
            file.content,
            file.name,
            file.imports,
            self.variables,
            dict(self.variable_files),
            dict(self.secret_files),
            str(file.path),
        )


def read_files(paths: Iterable[Path] | None) -> list[tuple[str, str]]:
    """Return name and text of each file. Raises BadRequestError for one that cannot be read."""
    return [(str(path), read_input(path)) for path in paths or ()]


def warn_of_readers(paths: Iterable[Path] | None) -> None:
    """Warn of each secret file that other users can read."""
    for path in paths or ():
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH):
            sys.stderr.write(f"warning: others may read the secrets in {path}; `chmod 600 {path}` keeps them out\n")


def read_input(path: Path) -> str:
    """Return the text of a file, or of stdin for `-`. Raises BadRequestError."""
    try:
        if str(path) == "-":
            text = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise BadRequestError(f"{path} is larger than {MAX_FILE_BYTES} bytes", code="variablesUnreadable")
        return text.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadRequestError(f"{path} cannot be read: {why or error}", code="variablesUnreadable") from error


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """Parse NAME=VALUE texts. Raises BadRequestError for one without a name."""
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise BadRequestError(
                f"{option} {text[:80]!r} is not NAME=VALUE", code="invalidPair", hint=f"as in {option} STAGE=test"
            )
        found[name.strip()] = value
    return found
