"""`runstream config`: check a configuration file and show what it would run, without a service; print its schema.

It imports little on purpose, neither HTTP nor rich: `check` runs again and again while a file is edited.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from msgspec import to_builtins

from runstream.cli.config_inputs import Flag, InputOptions, read_config
from runstream.cli.repository import enclosing_commit
from runstream.errors import BadRequestError
from runstream.evaluation.files import parse_file
from runstream.evaluation.program import EvaluationError
from runstream.events.run_config import Container, Depend, Retry, RunConfig, RunConfigTask, shown_text
from runstream.runconfig.amounts import format_duration
from runstream.runconfig.json_schema import schema_text
from runstream.runconfig.parse import notices
from runstream.runconfig.problems import ConfigError, Problem, as_errors
from runstream.runconfig.refs import RefContext, config_context, ref_context
from runstream.runconfig.resolve import ResolvedRun, require_fitting_environment, run_configs
from runstream.runconfig.variables import read_inputs, resolve

Json = dict[str, object]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The branch, tag, ref or commit that the file would run for."""

    branch: str = ""
    """Check for this branch. Default: the ref that is checked out."""
    tag: str = ""
    """Check for this tag."""
    ref: str = ""
    """Check for this full ref, such as refs/pull/1/head."""
    commit: str = ""
    """Check for this commit."""

    def context(self, path: Path) -> RefContext:
        """Return the ref of the options, else the one checked out around the file. Raises BadRequestError for two."""
        given = ref_context(branch=self.branch, tag=self.tag, ref=self.ref, commit_sha=self.commit)
        source = None if given.ref else enclosing_commit(path)
        if source is None:
            return given
        return ref_context(
            branch=source.branch, tag=source.tag, ref=source.ref, commit_sha=given.commit_sha or source.commit
        )


def check(
    file: Path | None = None,
    /,
    *,
    source: SourceOptions = SourceOptions(),
    given: InputOptions = InputOptions(),  # noqa: B008
    strict: Flag = False,
    output: Annotated[
        Literal["table", "json"], Parameter(name=["--output", "-o"], help="Text for people, or JSON for programs.")
    ] = "table",
) -> int:
    """Show what a configuration file would run, or every mistake in it. Needs no running service.

    Parameters
    ----------
    file
        The configuration file. Default: the first one found in .runstream or .agola.
    strict
        Treat warnings as errors.
    """
    found = read_config(file, Path.cwd())
    try:
        inputs = read_inputs(given.variables, given.variable_files, given.secret_files)
        context = source.context(found.path)
        parsed = parse_file(found.name, found.content, context, source=str(found.path), imports=found.imports)
        warnings = (*parsed.warnings, *notices(parsed), *inputs.warnings)
        if strict and warnings:
            raise ConfigError(str(found.path), as_errors(warnings))
        resolved = resolve(inputs.variables, inputs.secrets, context)
        known = _ShownVariables(resolved.texts, frozenset(resolved.secrets))
        runs = run_configs(parsed, context, known)
        for run in runs:
            require_fitting_environment(run.config)
    except (ConfigError, EvaluationError) as error:
        return _refuse(str(found.path), error, output)
    if output == "json":
        result = checked_json(str(found.path), context, runs, known.unknown, warnings)
        _print(json.dumps(result, indent=2))
    else:
        _print("\n".join(checked_lines(str(found.path), context, runs, known.unknown, warnings)))
    return 0


class _ShownVariables(Mapping[str, str]):
    """The variables as `check` shows them: secrets and missing variables by their names."""

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
    """Report all problems at once: for programs on stdout, for people as an error."""
    problems = error.problems if isinstance(error, ConfigError) else (Problem("", 0, error.message, error.hint),)
    if output == "json":
        _print(json.dumps({"file": file, "errors": [problem_json(one) for one in problems]}, indent=2))
        return 1
    if isinstance(error, ConfigError) and len(problems) > 1:
        more = [f"  and {error.omitted} more"] if error.omitted else []
        lines = [f"{error.source} is not valid:", *(f"  {problem}" for problem in problems), *more]
        raise BadRequestError("\n".join(lines), code=error.code, details=error.details, hint=error.hint) from error
    raise error


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def print_schema() -> int:
    """Print the JSON Schema of configuration files, for editors."""
    sys.stdout.write(schema_text())
    return 0


def checked_json(
    file: str, context: RefContext, runs: list[ResolvedRun], unknown: list[str], warnings: Iterable[Problem]
) -> Json:
    """Return a checked file as JSON, in the run config's names; runs that do not match the ref by name alone."""
    return {
        "file": file,
        "context": config_context(context),
        "runs": [_run_json(run) for run in runs],
        "unknown_variables": unknown,
        "warnings": [problem_json(warning) for warning in warnings],
    }


def problem_json(problem: Problem) -> Json:
    """Return a problem or warning as JSON; generated files have no line."""
    return {"path": problem.path, "line": problem.line or None, "message": problem.message, "hint": problem.hint}


def _run_json(run: ResolvedRun) -> Json:
    if not run.matches:
        return {"name": run.name, "matches": False}
    return {
        "name": run.name,
        "matches": True,
        "static_environment": run.config.static_environment,
        "environment": run.config.environment,
        "run_timeout_interval": run.config.run_timeout_interval,
        "concurrency": to_builtins(run.config.concurrency),
        "priority": run.config.priority,
        "fail_fast": run.config.fail_fast,
        "tasks": {name: _task_json(task) for name, task in run.config.tasks.items()},
    }


def _task_json(task: RunConfigTask) -> Json:
    return {
        "id": task.name,
        **to_builtins(task),
        "depends": {d.task: {"task_id": d.task, "conditions": list(d.conditions)} for d in task.depends},
        "runtime": {
            **to_builtins(task.runtime),
            "containers": [_container_json(container) for container in task.runtime.containers],
        },
        "steps": [{**to_builtins(step), "environment": step.environment or {}} for step in task.steps],
    }


def _container_json(container: Container) -> Json:
    volumes = [{"path": volume.path, "tmpfs": {"size": volume.tmpfs_size}} for volume in container.volumes]
    return {**to_builtins(container), "volumes": volumes}


def checked_lines(
    file: str, context: RefContext, runs: list[ResolvedRun], unknown: list[str], warnings: Iterable[Problem]
) -> Iterator[str]:
    """Yield the lines about a checked file: each run with its tasks by level, dependencies and environment."""
    yield f"{file} is valid; {_for_ref(context)} it would run:"
    for run in runs:
        if run.matches:
            yield f"run {run.name}{_run_options(run.config)}"
            for task in sorted(run.config.tasks.values(), key=lambda task: task.level):
                yield from _task_lines(task)
        else:
            yield f"run {run.name}: not, its `when` does not match"
    if unknown:
        yield f"variables that were not given: {', '.join(unknown)}"
    for warning in warnings:
        yield f"warning: {warning}"


def _for_ref(context: RefContext) -> str:
    if context.branch or context.tag:
        return f"for {context.ref_type} {context.branch or context.tag}"
    return f"for {context.ref}" if context.ref else "for no branch or tag"


def _run_options(config: RunConfig) -> str:
    """Return the run's options that differ from the defaults, in brackets."""
    policy, bound = config.concurrency.policy, config.concurrency.max_waiting
    facts = [
        f"concurrency {policy}" if policy != "queue" else "",
        f"at most {bound} waiting" if bound else "",
        f"priority {config.priority}" if config.priority else "",
        "fail_fast" if config.fail_fast else "",
        f"at most {format_duration(config.run_timeout_interval)}" if config.run_timeout_interval else "",
    ]
    text = "; ".join(filter(None, facts))
    return f" ({text})" if text else ""


def _task_lines(task: RunConfigTask) -> Iterator[str]:
    labels = (f"{name}={_one_line(value)}" for name, value in task.runtime.labels.items())
    facts = [f"level {task.level}", " ".join(filter(None, (task.runtime.type, task.runtime.arch, *labels)))]
    if task.depends:
        facts.append("after " + ", ".join(map(_dependency, task.depends)))
    if task.skip:
        facts.append("skipped: its `when` does not match")
    if task.needs_approval:
        facts.append("waits for approval")
    if task.task_timeout_interval:
        facts.append(f"at most {format_duration(task.task_timeout_interval)}")
    if task.retry is not None:
        facts.append(_retry(task.retry))
    yield f"  {task.name}: {'; '.join(facts)}"
    if task.environment:
        yield "    " + ", ".join(f"{name}={_one_line(shown_text(value))}" for name, value in task.environment.items())


def _retry(retry: Retry) -> str:
    wait = f", the first after {format_duration(retry.backoff)}" if retry.backoff else ""
    often = "once more" if retry.max == 1 else f"up to {retry.max} times more"
    return f"tried {often} after {' or '.join(retry.on)}{wait}"


def _dependency(depend: Depend) -> str:
    return depend.task if depend.conditions == ("on_success",) else f"{depend.task} ({' or '.join(depend.conditions)})"


def _one_line(value: str) -> str:
    shown = value if value.isprintable() else repr(value)[1:-1]
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
