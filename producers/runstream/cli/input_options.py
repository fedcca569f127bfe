"""The options that say what the variables and secrets of a configuration file are resolved from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from runstream.cli.input_files import read_files, warn_of_readers
from runstream.cli.pairs import pairs

if TYPE_CHECKING:
    from runstream.cli.config_files import ConfigFile
    from runstream.client import Inputs

Texts: TypeAlias = Annotated[list[str] | None, Parameter(negative="")]
Paths: TypeAlias = Annotated[list[Path] | None, Parameter(negative="")]
ConfigPath: TypeAlias = Annotated[Path | None, Parameter(name=["--config", "-c"])]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """Variables and secrets, as a user gives them."""

    var: Texts = None
    """NAME=VALUE for `from_variable` in the file; repeatable. Not for secrets."""
    var_file: Paths = None
    """A file of variables in YAML or JSON; repeatable, the last wins, and --var before it."""
    secret_file: Paths = None
    """A file of secrets in YAML or JSON; repeatable. They are encrypted before anything is stored, and never shown."""

    def __bool__(self) -> bool:
        """Whether any was given."""
        return bool(self.var or self.var_file or self.secret_file)

    @property
    def variables(self) -> dict[str, str]:
        """Those of --var. Raises BadRequestError for one that is not NAME=VALUE."""
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
        """What the service is sent; warns of secrets that others may read. Raises BadRequestError."""
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
