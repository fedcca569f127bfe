"""From a request to runs.

POST /runs has resolved tasks (rules create-1 to create-3), POST /createruns a file (rules create-5 to create-8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from runstream.config_secrets import to_seal
from runstream.domain.executor import Offer
from runstream.errors import BadRequestError
from runstream.evaluation.reader import ConfigReader
from runstream.events.run_config import RunConfig, Text
from runstream.gateway.bodies import CreateRunBody, CreateRunsBody, FreshBody
from runstream.gateway.capability import incapable
from runstream.gateway.creation import NewRun
from runstream.gateway.run_configs import require_name, run_config_of
from runstream.gateway.shapes import SkippedRunShape
from runstream.limits import require_group
from runstream.runconfig import (
    ConfigError,
    Inputs,
    ParsedConfig,
    Problem,
    RefContext,
    check_graph,
    notices,
    read_inputs,
    ref_context,
    require_fitting_environment,
    resolve,
    run_configs,
    run_group,
    skip_mark,
    static_environment,
    with_levels,
)

SETUP_ERROR = "Setup Error"
MAX_PATH = 1024
"""Characters of a configuration file's path that messages show."""
_URL_NAMES = frozenset({"AGOLA_REPOSITORY_URL", "RUNSTREAM_REPOSITORY_URL"})
"""Given for all tasks, they name the repository too."""
DIRECT_ROOT = "/user/admin"
"""The group root of runs that name neither group nor project."""


def requested_run(body: CreateRunBody) -> NewRun:
    """The run that was asked for. A graph that cannot be run makes a run with setup errors; the rest is refused."""
    require_group(body.group)
    if body.run_config_tasks is None and not body.setup_errors:
        raise BadRequestError(
            "the run has neither run_config_tasks nor setup_errors",
            code="invalidRunConfigTasks",
            hint="send the tasks by their ids, or {} for a run that does nothing",
        )
    name = body.name or (SETUP_ERROR if body.setup_errors else "")
    require_name(name, "run name")
    config = run_config_of(body, name)
    require_fitting_environment(config)
    errors = (*body.setup_errors, *check_graph(config.tasks))
    if not errors:
        config = replace(config, tasks=with_levels(config.tasks))
    return NewRun(body.group, config, body.annotations, errors)


@dataclass(frozen=True, slots=True)
class RequestedRuns:
    """What a file makes: the runs that are to be created, and what else there is to tell."""

    runs: list[NewRun]
    skipped: list[SkippedRunShape]
    warnings: list[Problem]


async def requested_runs(body: CreateRunsBody, configs: ConfigReader, offers: Mapping[str, Offer]) -> RequestedRuns:
    """The runs of the file that are for this branch, tag or ref; what comes from secrets is to be sealed in them.

    A file that is no configuration makes one run that shows what is wrong, where the body asks for that. Else raises
    ConfigError with all that is wrong with it, EvaluationError for a program that fails. `offers` are those of the
    living executors.
    """
    context = ref_context(
        branch=body.branch,
        tag=body.tag,
        ref=body.ref,
        commit_sha=body.commit_sha,
        repository_url=body.repository_url,
    )
    group = body.group or _default_group(context)
    require_group(group)
    file, then = body.config, partial(_matching, body, context, group, offers)
    path = file.path[:MAX_PATH]
    try:
        requested = await configs.read(file.name, file.content, context, then, file.imports, path)
        if body.strict and requested.warnings:
            raise ConfigError(path or file.name, requested.warnings)
        return requested
    except BadRequestError as error:
        if body.on_setup_error == "refuse":
            raise
        return RequestedRuns([_setup_error(body, context, group, error)], [], [])


def _matching(
    body: CreateRunsBody, context: RefContext, group: str, offers: Mapping[str, Offer], parsed: ParsedConfig
) -> RequestedRuns:
    inputs = given_inputs(body)
    variables = resolved_variables(inputs, context)
    annotations = _annotations(body, context) | body.annotations
    skip_all = bool(skip_mark(body.message))
    runs: list[NewRun] = []
    skipped: list[SkippedRunShape] = []
    for run in run_configs(parsed, context, variables, environment=body.environment, priority=body.priority):
        if run.matches and not skip_all:
            _require_sources(run.config, body)
            require_fitting_environment(run.config)
            runs.append(NewRun(group, run.config, annotations, ()))
        else:
            skipped.append(SkippedRunShape(run.name, "ci_skip" if skip_all else "when"))
    cannot_run = incapable((run.config for run in runs), offers)
    warnings = [*parsed.warnings, *notices(parsed, pods=not offers), *cannot_run, *inputs.warnings]
    return RequestedRuns(runs, skipped, warnings)


def _require_sources(config: RunConfig, body: CreateRunsBody) -> None:
    """Raise BadRequestError for a clone step in a run that has no repository: its task could only fail."""
    if body.repository_url or not _URL_NAMES.isdisjoint(body.environment):
        return
    for task in config.tasks.values():
        if not task.skip and any(step.type == "clone" for step in task.steps):
            raise BadRequestError(
                f"task {task.name!r} of run {config.name!r} has a clone step, and the run has no repository",
                code="repositoryMissing",
                hint="give one (--repo, repository_url), or create the run in a git repository with a commit",
            )


def _setup_error(body: CreateRunsBody, context: RefContext, group: str, error: BadRequestError) -> NewRun:
    """The run that shows what is wrong with the file (rule create-7)."""
    if isinstance(error, ConfigError):
        more = [f"and {error.omitted} more"] if error.omitted else []
        texts = [f"{error.source}: {problem}" for problem in error.problems] + more
    else:
        texts = [error.message]
    config = RunConfig(SETUP_ERROR, {}, static_environment(context), body.environment, "")
    return NewRun(group, config, _annotations(body, context) | body.annotations, tuple(texts))


def given_inputs(body: CreateRunsBody | FreshBody) -> Inputs:
    """The variables and secrets of a request. Raises ConfigError with all that is wrong with a file of them."""
    variable_files, secret_files = (
        [(file.name, file.content) for file in files] for files in (body.variable_files, body.secret_files)
    )
    return read_inputs(body.variables, variable_files, secret_files)


def resolved_variables(inputs: Inputs, context: RefContext) -> dict[str, Text]:
    """What the inputs give for these sources; secrets are to be sealed."""
    resolved = resolve(inputs.variables, inputs.secrets, context)
    return {**resolved.texts, **{name: to_seal(text) for name, text in resolved.secrets.items()}}


def _default_group(context: RefContext) -> str:
    named = context.branch or context.tag or context.pull_request_id
    return run_group(DIRECT_ROOT, context) if named else f"{DIRECT_ROOT}/direct"


def _annotations(body: CreateRunsBody, context: RefContext) -> dict[str, str]:
    """What is known of the sources (rule create-8), without what is empty."""
    known = {
        "run_creation_trigger": "manual",
        "ref_type": context.ref_type,
        "ref": context.ref,
        "branch": context.branch,
        "tag": context.tag,
        "pull_request_id": context.pull_request_id,
        "commit_sha": context.commit_sha,
        "message": body.message,
    }
    return {name: value for name, value in known.items() if value}
