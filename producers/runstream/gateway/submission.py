"""From a request to runs: POST /runs has them resolved (domain c.2), POST /createruns has a file (b.2)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from runstream.errors import BadRequestError
from runstream.evaluation.reader import ConfigReader
from runstream.gateway.bodies import CreateRunBody, CreateRunsBody
from runstream.gateway.creation import NewRun
from runstream.gateway.run_configs import require_name, run_config_of
from runstream.runconfig import (
    ParsedConfig,
    RefContext,
    check_graph,
    ref_context,
    run_configs,
    run_group,
    with_levels,
)
from runstream.subjects import group_root

SETUP_ERROR = "Setup Error"
DIRECT_ROOT = "/user/admin"
"""The group root of runs that name neither group nor project."""


def requested_run(body: CreateRunBody) -> NewRun:
    """The run that was asked for. A graph that cannot be run makes a run with setup errors; the rest is refused."""
    group_root(body.group)
    if body.run_config_tasks is None and not body.setup_errors:
        raise BadRequestError(
            "the run has neither run_config_tasks nor setup_errors",
            code="invalidRunConfigTasks",
            hint="send the tasks by their ids, or {} for a run that does nothing",
        )
    name = body.name or (SETUP_ERROR if body.setup_errors else "")
    require_name(name, "run name")
    config = run_config_of(body, name)
    errors = (*body.setup_errors, *check_graph(config.tasks))
    if not errors:
        config = replace(config, tasks=with_levels(config.tasks))
    return NewRun(body.group, config, body.annotations, errors)


async def requested_runs(body: CreateRunsBody, configs: ConfigReader) -> list[NewRun]:
    """The runs of the file that are for this branch, tag or ref.

    Raises ConfigError with all that is wrong with it, EvaluationError for a program that fails.
    """
    context = ref_context(
        branch=body.branch,
        tag=body.tag,
        ref=body.ref,
        commit_sha=body.commit_sha,
        repository_url=body.repository_url,
    )
    group = body.group or _default_group(context)
    group_root(group)
    return await configs.read(body.config.name, body.config.content, context, partial(_matching, body, context, group))


def _matching(body: CreateRunsBody, context: RefContext, group: str, parsed: ParsedConfig) -> list[NewRun]:
    annotations = _annotations(body, context) | body.annotations
    return [
        NewRun(group, run.config, annotations, ())
        for run in run_configs(parsed, context, body.variables, environment=body.environment, priority=body.priority)
        if run.matches
    ]


def _default_group(context: RefContext) -> str:
    named = context.branch or context.tag or context.pull_request_id
    return run_group(DIRECT_ROOT, context) if named else f"{DIRECT_ROOT}/direct"


def _annotations(body: CreateRunsBody, context: RefContext) -> dict[str, str]:
    """What is known of the sources (b.7), without what is empty."""
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
