"""From a parsed configuration to the run configs of one ref, with variables resolved (rules config-8 and config-15)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar, assert_never

from msgspec.structs import replace

from runstream.errors import BadRequestError
from runstream.events.run_config import (
    Container,
    Depend,
    RegistryAuth,
    RunConfig,
    RunConfigTask,
    Runtime,
    Step,
    Text,
)
from runstream.runconfig.environment import RefContext, static_environment
from runstream.runconfig.graph import levels
from runstream.runconfig.parsed import ParsedConfig, RunSpec, TaskSpec
from runstream.runconfig.runtime import RuntimeSpec
from runstream.runconfig.steps import (
    CloneStep,
    RestoreCacheStep,
    RestoreWorkspaceStep,
    RunStep,
    SaveCacheStep,
    SaveToWorkspaceStep,
    StepSpec,
)
from runstream.runconfig.values import RegistryAuthSpec, Value
from runstream.runconfig.when import When, match_when

DEFAULT_SHELL = "/bin/sh -e"
CLONE_NAME = "Clone repository and checkout code"
MAX_RESOLVED_BYTES = 4 << 20
"""Of all values that come from variables, and of what is the same for all runs of a file."""
Variables = Mapping[str, Text]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ResolvedRun:
    """One run of the file as it would be created."""

    name: str
    config: RunConfig
    matches: bool
    """Whether the run's `when` matches the ref; a run that does not match is not created."""


def run_configs(
    parsed: ParsedConfig,
    context: RefContext,
    variables: Variables,
    *,
    environment: Mapping[str, Text] | None = None,
    cache_group: str = "",
    priority: int | None = None,
) -> list[ResolvedRun]:
    """Every run of the file, in its order.

    `environment` is the run-level one, which wins over all others; `priority` wins over the file's.

    Raises BadRequestError (code configTooLarge) when it would repeat given values until they are megabytes.
    """
    static = static_environment(context)
    common = sum(_size(value) for value in (*static.values(), *(environment or {}).values()))
    metered = _Metered(variables)
    metered.spend(len(parsed.runs) * common)
    return [
        ResolvedRun(
            run.name,
            RunConfig(
                name=run.name,
                tasks=run_config_tasks(parsed, run, context, metered),
                static_environment=static,
                environment=dict(environment or {}),
                cache_group=cache_group,
                run_timeout_interval=_nearest(run.run_timeout_interval, parsed.run_timeout_interval) or 0,
                concurrency=run.concurrency,
                priority=run.priority if priority is None else priority,
                fail_fast=run.fail_fast,
            ),
            _matches(run.when, context),
        )
        for run in parsed.runs
    ]


class _Metered(Mapping[str, Text]):
    """Variables that count what is taken of them: a small file could ask for a long value many thousand times."""

    def __init__(self, variables: Variables) -> None:
        self._variables = variables
        self._left = MAX_RESOLVED_BYTES

    def __getitem__(self, name: str) -> Text:
        value = self._variables[name]
        self.spend(_size(value))
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def spend(self, size: int) -> None:
        """Raises BadRequestError when nothing is left."""
        self._left -= size
        if self._left < 0:
            raise BadRequestError(
                f"with its variables the configuration is larger than {MAX_RESOLVED_BYTES} bytes",
                code="configTooLarge",
                hint="use long values in fewer places",
            )


def _size(text: Text) -> int:
    return len(text if isinstance(text, str) else text.value)


def run_config_tasks(
    parsed: ParsedConfig, run: RunSpec, context: RefContext, variables: Variables
) -> dict[str, RunConfigTask]:
    """The tasks of a run, by name."""
    level_of = levels({task.name: [depend.task for depend in task.depends] for task in run.tasks})
    return {task.name: _task(parsed, run, task, level_of[task.name], context, variables) for task in run.tasks}


def _task(
    parsed: ParsedConfig, run: RunSpec, task: TaskSpec, level: int, context: RefContext, variables: Variables
) -> RunConfigTask:
    silence = _nearest(task.no_output_timeout, run.no_output_timeout, parsed.no_output_timeout) or 0
    retry = _nearest(task.retry, run.retry, parsed.retry)
    registries = parsed.docker_registries_auth | run.docker_registries_auth | task.docker_registries_auth
    return RunConfigTask(
        name=task.name,
        level=level,
        depends=tuple(Depend(depend.task, depend.conditions or ("on_success",)) for depend in task.depends),
        runtime=_runtime(task.runtime, variables),
        environment=_resolved(task.environment, variables),
        working_dir=task.working_dir,
        shell=task.shell or DEFAULT_SHELL,
        user=task.user,
        steps=tuple(_limited(step, _step(step, variables), silence) for step in task.steps),
        ignore_failure=task.ignore_failure,
        skip=not _matches(task.when, context),
        needs_approval=task.approval,
        docker_registries_auth={registry: _auth(auth, variables) for registry, auth in registries.items()},
        task_timeout_interval=_timeout(parsed, run, task),
        retry=retry if retry is not None and retry.max else None,
    )


def _matches(when: When | None, context: RefContext) -> bool:
    return match_when(when, context.ref_type, context.branch, context.tag, context.ref)


def _timeout(parsed: ParsedConfig, run: RunSpec, task: TaskSpec) -> int:
    """The nearest one given. A negative one can be written, and means none."""
    given = _nearest(task.task_timeout_interval, run.task_timeout_interval, parsed.task_timeout_interval)
    return max(0, given or 0)


def _nearest(*given: T | None) -> T | None:
    """The first that was given."""
    return next((one for one in given if one is not None), None)


def _limited(step: StepSpec, made: Step, silence: int) -> Step:
    """The step with its limits; `silence` is what its task says of all run steps."""
    quiet = _nearest(step.no_output_timeout, silence) if isinstance(step, RunStep) else 0
    return replace(made, step_timeout_interval=step.step_timeout_interval, no_output_timeout=quiet or 0)


def _resolved(environment: Mapping[str, Value], variables: Variables) -> dict[str, Text]:
    return {name: value.resolved(variables) for name, value in environment.items()}


def _auth(auth: RegistryAuthSpec, variables: Variables) -> RegistryAuth:
    return RegistryAuth(
        type=auth.type,
        username=auth.username.resolved(variables),
        password=auth.password.resolved(variables),
        auth=auth.auth.resolved(variables),
    )


def _runtime(runtime: RuntimeSpec, variables: Variables) -> Runtime:
    containers = tuple(
        Container(
            image=container.image,
            environment=_resolved(container.environment, variables),
            user=container.user,
            privileged=container.privileged,
            entrypoint=container.entrypoint,
            volumes=container.volumes,
        )
        for container in runtime.containers
    )
    return Runtime(runtime.type, runtime.arch, containers, runtime.labels)


def _step(step: StepSpec, variables: Variables) -> Step:
    match step:
        case RunStep():
            return Step(
                type="run",
                name=step.name,
                command=step.command,
                environment=_resolved(step.environment, variables),
                working_dir=step.working_dir,
                shell=step.shell,
                tty=step.tty,
            )
        case CloneStep():
            name = step.name or CLONE_NAME
            return Step(type="clone", name=name, depth=step.depth or 0, recurse_submodules=step.recurse_submodules)
        case SaveToWorkspaceStep():
            return Step(type="save_to_workspace", name=step.name, contents=step.contents)
        case RestoreWorkspaceStep():
            return Step(type="restore_workspace", name=step.name, dest_dir=step.dest_dir)
        case SaveCacheStep():
            return Step(type="save_cache", name=step.name, key=step.key, contents=step.contents)
        case RestoreCacheStep():
            return Step(type="restore_cache", name=step.name, keys=step.keys, dest_dir=step.dest_dir)
        case _:
            assert_never(step)
