"""Restarts: the new run of a request, decided on the state of the earlier run (rules restart-1 to restart-10).

A fresh restart resolves variables and secrets again. Runs store only resolved values, so the request gives the
configuration file and its inputs again. Only values may differ: a file with other tasks makes a new run, not a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from msgspec.structs import replace

from runstream.api import RestartPreview
from runstream.domain.actions import NotAllowed
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.restart import decide_restart
from runstream.domain.run import RestartOrigin
from runstream.errors import BadRequestError
from runstream.evaluation.reader import ConfigReader
from runstream.events.run_config import RunConfig, Text
from runstream.gateway.reads import Reads
from runstream.gateway.requests import CreateRunBody, FreshBody
from runstream.gateway.runs.clone_tokens import cloned_repository
from runstream.gateway.runs.create import PreparedRun
from runstream.gateway.runs.prepare import inputs_of, resolved_variables
from runstream.log.port import Log
from runstream.log.runs import locate_run, task_of
from runstream.runconfig.parse import ParsedConfig
from runstream.runconfig.refs import RefContext
from runstream.runconfig.resolve import differing_tasks, require_fitting_environment, run_configs
from runstream.runconfig.when import RefType
from runstream.sealing import has_secrets


async def with_fresh_values(fresh: FreshBody, earlier: RunConfig, configs: ConfigReader) -> RunConfig:
    """Return the earlier run config with the values that the inputs give now.

    Raises BadRequestError when the file does not make the same run, and what reading a configuration raises.
    """
    context = _context(earlier.static_environment)

    def resolve(parsed: ParsedConfig) -> RunConfig:
        variables = resolved_variables(inputs_of(fresh), context)
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
    """Return the sources of the earlier run, from the environment of its tasks."""

    def variable(name: str) -> str:
        text = static.get(f"RUNSTREAM_{name}", "")
        return text if isinstance(text, str) else ""

    return RefContext(
        ref_type=cast("RefType", variable("GIT_REF_TYPE")),
        ref=variable("GIT_REF"),
        branch=variable("GIT_BRANCH"),
        tag=variable("GIT_TAG"),
        pull_request_id=variable("PULL_REQUEST_ID"),
        commit_sha=variable("GIT_COMMITSHA"),
        repository_url=variable("REPOSITORY_URL"),
    )


def _differs(message: str) -> BadRequestError:
    return BadRequestError(
        message,
        code="configDiffers",
        hint="a fresh restart takes the same file with other values; for another file, create a new run",
    )


_OF_A_RESTART = ("from_start", "tasks", "descendants", "fresh")
_OF_THE_EARLIER_RUN = (
    "name",
    "run_config_tasks",
    "setup_errors",
    "static_environment",
    "cache_group",
    "annotations",
    "concurrency",
    "priority",
    "fail_fast",
)
_NOTHING = CreateRunBody()


@dataclass(frozen=True, slots=True)
class PreparedRestart:
    """A restart that is allowed."""

    new: PreparedRun
    executions: dict[str, ExecutorTask]
    """Executor tasks of the tasks that it keeps, by their ids."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """Decisions on restarts."""

    log: Log
    reads: Reads
    configs: ConfigReader

    async def preview(self, body: CreateRunBody) -> RestartPreview:
        """Return what a restart would run again and keep. Raises as `prepare` does, not for an impossible restart."""
        scope = _scope(body)
        read = await self.reads.run(body.run_id, [])
        run = read.record.run
        tasks = tuple(dict.fromkeys(task_of(run, text).name for text in body.tasks)) if run.tasks else ()
        request = RestartOrigin(run.id, scope, tasks, descendants=body.descendants, fresh=False)
        try:
            restart = decide_restart(run, read.config, request)
        except NotAllowed as refusal:
            return RestartPreview(False, str(refusal), refusal.allowed, (), ())
        kept = tuple(task.task for task in restart.kept)
        return RestartPreview(True, "", "", tuple(name for name in run.tasks if name not in kept), kept)

    async def prepare(self, body: CreateRunBody) -> PreparedRestart:
        """Return the restart of a request.

        Raises NotExistError for a run or task that does not exist, BadRequestError for a run that cannot be restarted
        this way, and for a request that contradicts itself.
        """
        scope = _scope(body)
        address = await locate_run(self.log, body.run_id)
        last = await self.log.last(address)
        read = await self.reads.run(body.run_id, [last.position] if last is not None else [])
        run, config = read.record.run, read.config
        if body.environment is not None and body.environment != config.environment:
            _require_no_secrets(config, fresh=body.fresh is not None)
            config = replace(config, environment=body.environment)
        if body.fresh is not None:
            config = await with_fresh_values(body.fresh, config, self.configs)
        require_fitting_environment(config)
        tasks = tuple(dict.fromkeys(task_of(run, text).name for text in body.tasks)) if run.tasks else ()
        request = RestartOrigin(run.id, scope, tasks, descendants=body.descendants, fresh=body.fresh is not None)
        try:
            restart = decide_restart(run, config, request)
        except NotAllowed as refusal:
            details = {"run": run.id, "phase": run.phase.value}
            raise BadRequestError(str(refusal), code=refusal.code, details=details, hint=refusal.allowed) from refusal
        kept = {task.executor_task_id for task in restart.kept}
        executions = {key: one for key, one in read.record.executor_tasks.items() if key in kept}
        repository = cloned_repository(run.group, config)
        new = PreparedRun(run.group, config, run.annotations, (), restart, repository)
        return PreparedRestart(new, executions)


def _require_no_secrets(config: RunConfig, *, fresh: bool) -> None:
    """Raise BadRequestError for a run with secrets: another environment could make its tasks reveal them.

    A fresh restart gives the secrets of tasks again, but not the credentials of the repository.
    """
    if has_secrets(config.static_environment) or (not fresh and has_secrets(config.tasks)):
        raise BadRequestError(
            "the run has secrets, which were given for its environment: a restart cannot replace that",
            code="environmentBound",
            hint="leave the environment out, or create a new run with its secrets",
        )


def _scope(body: CreateRunBody) -> Literal["all", "failed", "chosen"]:
    given = [name for name in _OF_THE_EARLIER_RUN if getattr(body, name) != getattr(_NOTHING, name)]
    if given:
        raise _invalid(f"a restart takes {', '.join(given)} from the earlier run", "leave it out, or create a new run")
    if body.from_start and body.tasks:
        raise _invalid("a restart is from the start, or of some tasks", "give from_start or tasks")
    if body.descendants and not body.tasks:
        raise _invalid("descendants of no tasks", "name the tasks to run again in tasks")
    if body.tasks:
        return "chosen"
    return "all" if body.from_start else "failed"


def require_no_restart(body: CreateRunBody) -> None:
    """Raise BadRequestError when a request without `run_id` has fields of a restart."""
    given = [name for name in _OF_A_RESTART if getattr(body, name) != getattr(_NOTHING, name)]
    if given:
        raise _invalid(f"{', '.join(given)} without run_id", "name the run to restart in run_id")


def _invalid(message: str, hint: str) -> BadRequestError:
    return BadRequestError(message, code="invalidRestart", hint=hint)
