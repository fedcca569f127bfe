"""A restart with variables and secrets resolved again: from the same configuration file, for the same sources.

They were resolved when the earlier run was created, and nobody kept what they came from. So the file and its inputs are
given again. Only values may differ: a file that does other work makes a new run, not a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from msgspec.structs import replace

from runstream.errors import BadRequestError
from runstream.evaluation.reader import ConfigReader
from runstream.events.run_config import RunConfig, Text
from runstream.gateway.bodies import FreshBody
from runstream.gateway.submission import given_inputs, resolved_variables
from runstream.runconfig import ParsedConfig, RefContext, differing_tasks, run_configs
from runstream.runconfig.when import RefType


async def refreshed(fresh: FreshBody, earlier: RunConfig, configs: ConfigReader) -> RunConfig:
    """The earlier run config with the values that the inputs give now.

    Raises BadRequestError when the file does not make the same run, and what reading a configuration raises.
    """
    context = _context(earlier.static_environment)

    def resolve(parsed: ParsedConfig) -> RunConfig:
        variables = resolved_variables(given_inputs(fresh), context)
        runs = run_configs(parsed, context, variables, environment=earlier.environment)
        found = next((run.config for run in runs if run.name == earlier.name and run.matches), None)
        if found is None:
            raise _differs(f"the file makes no run {earlier.name!r} for {context.ref or 'no ref'}")
        differing = differing_tasks(earlier.tasks, found.tasks)
        if differing:
            raise _differs(f"the file has other tasks than the run: {', '.join(differing[:10])}")
        return replace(earlier, tasks=found.tasks)

    file = fresh.config
    return await configs.read(file.name, file.content, context, resolve, file.imports, file.path)


def _context(static: Mapping[str, Text]) -> RefContext:
    """The sources that the earlier run was for, as its tasks were told."""

    def told(name: str) -> str:
        text = static.get(f"RUNSTREAM_{name}", "")
        return text if isinstance(text, str) else ""

    return RefContext(
        ref_type=cast("RefType", told("GIT_REF_TYPE")),
        ref=told("GIT_REF"),
        branch=told("GIT_BRANCH"),
        tag=told("GIT_TAG"),
        pull_request_id=told("PULL_REQUEST_ID"),
        commit_sha=told("GIT_COMMITSHA"),
        repository_url=told("REPOSITORY_URL"),
    )


def _differs(message: str) -> BadRequestError:
    return BadRequestError(
        message,
        code="configDiffers",
        hint="a fresh restart takes the file as it was, with other values; with another file, create a new run",
    )
