"""`runstream config check`: what a configuration file would run, found out without any service.

It imports little on purpose: it is run again and again while a file is written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from runstream.cli.config_files import read_config
from runstream.cli.config_json import checked_json, problem_json
from runstream.cli.config_table import checked_lines
from runstream.cli.input_options import InputOptions
from runstream.cli.repository import enclosing_source
from runstream.errors import BadRequestError
from runstream.evaluation import EvaluationError, parse_file
from runstream.runconfig import (
    ConfigError,
    Problem,
    RefContext,
    notices,
    read_inputs,
    ref_context,
    require_fitting_environment,
    resolve,
    run_configs,
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What the file would run for."""

    branch: str = ""
    """The branch that it would run for. Default: what is checked out."""
    tag: str = ""
    """Or the tag."""
    ref: str = ""
    """Or the full ref, such as refs/pull/1/head."""
    commit: str = ""
    """The commit."""

    def context(self, path: Path) -> RefContext:
        """What was said, or else what is checked out where the file is. Raises BadRequestError for two at once."""
        said = ref_context(branch=self.branch, tag=self.tag, ref=self.ref, commit_sha=self.commit)
        source = None if said.ref else enclosing_source(path)
        if source is None:
            return said
        return ref_context(
            branch=source.branch, tag=source.tag, ref=source.ref, commit_sha=said.commit_sha or source.commit
        )


def check(
    file: Path | None = None,
    /,
    *,
    source: SourceOptions = SourceOptions(),
    given: InputOptions = InputOptions(),  # noqa: B008
    strict: Annotated[bool, Parameter(negative="")] = False,
    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table",
) -> int:
    """Show what a configuration file would run, or everything that is wrong with it. No service is needed.

    Parameters
    ----------
    file
        The configuration file. Default: the first that is found in .runstream or .agola.
    strict
        Refuse what is only worth a warning, too.
    output
        How to print it.
    """
    found = read_config(file, Path.cwd())
    try:
        inputs = read_inputs(given.variables, given.variable_files, given.secret_files)
        context = source.context(found.path)
        parsed = parse_file(found.name, found.content, context, source=str(found.path), imports=found.imports)
        warnings = (*parsed.warnings, *notices(parsed), *inputs.warnings)
        if strict and warnings:
            raise ConfigError(str(found.path), warnings)
        resolved = resolve(inputs.variables, inputs.secrets, context)
        known = _Known(resolved.texts, frozenset(resolved.secrets))
        runs = run_configs(parsed, context, known)
        for run in runs:
            require_fitting_environment(run.config)
    except (ConfigError, EvaluationError) as error:
        return _refuse(str(found.path), error, output)
    if output == "json":
        told = checked_json(str(found.path), context, runs, known.unknown, warnings)
        _say(json.dumps(told, indent=2))
    else:
        _say("\n".join(checked_lines(str(found.path), context, runs, known.unknown, warnings)))
    return 0


class _Known(Mapping[str, str]):
    """The variables as they are shown: secrets, and what was not given, by their names."""

    def __init__(self, variables: Mapping[str, str], secrets: frozenset[str]) -> None:
        self._variables = variables
        self._secrets = secrets
        self.unknown: list[str] = []

    def __getitem__(self, name: str) -> str:
        if name in self._variables:
            return self._variables[name]
        if name not in self._secrets and name not in self.unknown:
            self.unknown.append(name)
        return f"{{from_variable: {name}}}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


def _refuse(file: str, error: ConfigError | EvaluationError, output: str) -> int:
    """Everything that is wrong, at once: for programs on stdout, for people as an error."""
    problems = error.problems if isinstance(error, ConfigError) else (Problem("", 0, error.message, error.hint),)
    if output == "json":
        _say(json.dumps({"file": file, "errors": [problem_json(one) for one in problems]}, indent=2))
        return 1
    if isinstance(error, ConfigError) and len(problems) > 1:
        more = [f"  and {error.omitted} more"] if error.omitted else []
        lines = [f"{error.source} is not valid:", *(f"  {problem}" for problem in problems), *more]
        raise BadRequestError("\n".join(lines), code=error.code, details=error.details, hint=error.hint) from error
    raise error


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
