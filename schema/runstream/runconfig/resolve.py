"""Run configs: made from a parsed file for one ref (rules config-8 and config-15), hashed, compared and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

from msgspec.structs import replace

from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.events.run_config import (
    DEFAULT_SHELL,
    Container,
    Depend,
    RegistryAuth,
    RunConfig,
    RunConfigTask,
    Runtime,
    Step,
    Text,
)
from runstream.runconfig.graph import levels
from runstream.runconfig.parse import ParsedConfig, RunSpec
from runstream.runconfig.refs import RefContext, static_environment
from runstream.runconfig.steps import TYPE_OF_STEP, CloneStep, RunStep, StepSpec
from runstream.runconfig.tasks import RuntimeSpec, TaskSpec
from runstream.runconfig.values import RegistryAuthSpec, Value

CLONE_NAME = "Clone repository and checkout code"
MAX_RESOLVED_BYTES = 4 << 20
"""Bytes that one file may take from variables and from the environment of its runs, each use counted."""
MAX_ENTRY_BYTES = 131_072
"""Bytes of a variable in a process: its name, `=`, its value and a final zero (Linux: MAX_ARG_STRLEN)."""
MAX_ENVIRONMENT_BYTES = (2 << 20) - (128 << 10)
"""Bytes of all variables of a process, with 8 more for each: Linux takes a quarter of the stack, which has 8 MiB by
default, for variables and arguments."""
_SEALED_EXTRA_BYTES = 28
"""Nonce and tag of a sealed value."""
_MAX_NAMED = 5
"""Variables that an error names."""
Variables = Mapping[str, Text]
Tasks = Mapping[str, RunConfigTask]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ResolvedRun:
    """A run of the file, ready to be created."""

    name: str
    config: RunConfig
    matches: bool
    """False for a run whose `when` excludes the ref; it is not created."""


def run_configs(
    parsed: ParsedConfig,
    context: RefContext,
    variables: Variables,
    *,
    environment: Mapping[str, Text] | None = None,
    cache_group: str = "",
    priority: int | None = None,
) -> list[ResolvedRun]:
    """Return the runs of the file, in its order.

    `environment` is the run's own, which wins over all others; `priority` wins over the file's.

    Raise BadRequestError (code configTooLarge) for a file that repeats values past MAX_RESOLVED_BYTES.
    """
    static = static_environment(context)
    common = sum(_size(value) for value in (*static.values(), *(environment or {}).values()))
    budgeted = _BudgetedVariables(variables)
    budgeted.spend(len(parsed.runs) * common)
    return [
        ResolvedRun(
            run.name,
            RunConfig(
                name=run.name,
                tasks=_tasks(parsed, run, context, budgeted),
                static_environment=static,
                environment=dict(environment or {}),
                cache_group=cache_group,
                run_timeout_interval=_first_given(run.run_timeout_interval, parsed.run_timeout_interval) or 0,
                concurrency=run.concurrency,
                priority=run.priority if priority is None else priority,
                fail_fast=run.fail_fast,
            ),
            context.matches(run.when),
        )
        for run in parsed.runs
    ]


class _BudgetedVariables(Mapping[str, Text]):
    """Variables with a budget in bytes: a small file could use a long value many thousand times."""

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
        """Take bytes from the budget. Raise BadRequestError if it is exhausted."""
        self._left -= size
        if self._left < 0:
            raise BadRequestError(
                f"with its variables the configuration is larger than {MAX_RESOLVED_BYTES} bytes",
                code="configTooLarge",
                hint="use long values in fewer places",
            )


def _size(text: Text) -> int:
    return len(text if isinstance(text, str) else text.value)


def _tasks(parsed: ParsedConfig, run: RunSpec, context: RefContext, variables: Variables) -> dict[str, RunConfigTask]:
    level_of = levels({task.name: [depend.task for depend in task.depends] for task in run.tasks})
    return {task.name: _task(parsed, run, task, level_of[task.name], context, variables) for task in run.tasks}


def _task(
    parsed: ParsedConfig, run: RunSpec, task: TaskSpec, level: int, context: RefContext, variables: Variables
) -> RunConfigTask:
    no_output_timeout = _first_given(task.no_output_timeout, run.no_output_timeout, parsed.no_output_timeout) or 0
    retry = _first_given(task.retry, run.retry, parsed.retry)
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
        steps=tuple(_step(step, variables, no_output_timeout) for step in task.steps),
        ignore_failure=task.ignore_failure,
        skip=not context.matches(task.when),
        needs_approval=task.approval,
        docker_registries_auth={registry: _auth(auth, variables) for registry, auth in registries.items()},
        task_timeout_interval=_timeout(parsed, run, task),
        retry=retry if retry is not None and retry.max else None,
    )


def _timeout(parsed: ParsedConfig, run: RunSpec, task: TaskSpec) -> int:
    """Return the nearest task timeout; files may write a negative one for none."""
    given = _first_given(task.task_timeout_interval, run.task_timeout_interval, parsed.task_timeout_interval)
    return max(0, given or 0)


def _first_given(*given: T | None) -> T | None:
    """Return the first value that is not None."""
    return next((one for one in given if one is not None), None)


def _resolved(environment: Mapping[str, Value], variables: Variables) -> dict[str, Text]:
    return {name: value.resolved(variables) for name, value in environment.items()}


def _auth(auth: RegistryAuthSpec, variables: Variables) -> RegistryAuth:
    return RegistryAuth(auth.type, *(one.resolved(variables) for one in (auth.username, auth.password, auth.auth)))


def _runtime(runtime: RuntimeSpec, variables: Variables) -> Runtime:
    containers = tuple(
        Container(
            image=container.image,
            environment=_resolved(container.environment, variables),
            user=container.user,
            privileged=container.privileged,
            entrypoint=container.entrypoint,
            volumes=container.volumes,
            resources=container.resources,
        )
        for container in runtime.containers
    )
    return Runtime(runtime.type, runtime.arch, containers, runtime.labels)


def _step(step: StepSpec, variables: Variables, no_output_timeout: int) -> Step:
    """Return a step; `no_output_timeout` is its task's."""
    values = {one.name: getattr(step, one.name) for one in fields(step) if one.name != "when"}
    match step:
        case RunStep():
            values["environment"] = _resolved(step.environment, variables)
            values["no_output_timeout"] = _first_given(step.no_output_timeout, no_output_timeout) or 0
        case CloneStep():
            values |= {"name": step.name or CLONE_NAME, "depth": step.depth or 0}
    return Step(type=TYPE_OF_STEP[type(step)], **values)


def canonical(config: RunConfig) -> bytes:
    """Return a run config as JSON with sorted keys. Raise TypeError for a text that is not Unicode."""
    import orjson  # not at the top: `config check` does without
    from msgspec.structs import asdict

    return orjson.dumps(config, default=asdict, option=orjson.OPT_SORT_KEYS)


def config_hash(config: RunConfig) -> str:
    """Return the SHA-256, in hex, of the canonical JSON: the id under which a run config is stored."""
    from runstream.ids import content_hash

    return content_hash(canonical(config))


def differing_tasks(one: Tasks, other: Tasks) -> list[str]:
    """Return the names of tasks that only one side has, or whose work differs; values of variables do not count."""
    return [name for name in {**one, **other} if _work(one.get(name)) != _work(other.get(name))]


def _work(task: RunConfigTask | None) -> RunConfigTask | None:
    """Return a task without the values of variables: these are in environments and registry logins only."""
    if task is None:
        return None
    runtime = task.runtime
    containers = tuple(replace(one, environment=_names(one.environment)) for one in runtime.containers)
    logins = task.docker_registries_auth.items()
    return replace(
        task,
        environment=_names(task.environment),
        runtime=replace(runtime, containers=containers),
        steps=tuple(replace(step, environment=_names(step.environment or {})) for step in task.steps),
        docker_registries_auth={name: replace(one, username="", password="", auth="") for name, one in logins},
    )


def _names(environment: Mapping[str, Text]) -> dict[str, Text]:
    return dict.fromkeys(environment, "")


def require_fitting_environment(config: RunConfig) -> None:
    """Raise BadRequestError if a variable, or all of a step together, is too large for the environment of a process."""
    found = dict(_too_large(config))
    if found:
        sizes = [f"{name[:100]} is {counted(size, 'byte')}" for name, size in list(found.items())[:_MAX_NAMED]]
        more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
        details: dict[str, object] = {"run": config.name, "variables": found}
        raise _too_large_error(f"{', '.join(sizes)}{more}", MAX_ENTRY_BYTES, details)
    shared = _entries_bytes(config.static_environment) + _entries_bytes(config.environment)
    for task in config.tasks.values():
        if task.skip:
            continue
        most = shared + _entries_bytes(task.environment)
        for index, step in enumerate(task.steps):
            own = step.environment or {}
            if most + _entries_bytes(own) <= MAX_ENVIRONMENT_BYTES:
                continue
            total = _entries_bytes({**config.static_environment, **config.environment, **task.environment, **own})
            if total > MAX_ENVIRONMENT_BYTES:
                message = f'step {index} of task "{task.name}" has variables of {counted(total, "byte")}'
                details = {"run": config.name, "task": task.name, "step": index, "bytes": total}
                raise _too_large_error(message, MAX_ENVIRONMENT_BYTES, details)


def _too_large_error(what: str, limit: int, details: dict[str, object]) -> BadRequestError:
    return BadRequestError(
        f"{what}, a process can take {limit:,}",
        code="environmentTooLarge",
        details=details,
        hint="hand it over in a file: in the repository, or by save_to_workspace",
    )


def _entries_bytes(environment: Mapping[str, Text]) -> int:
    return sum(len(name.encode()) + _value_bytes(value) + 2 + 8 for name, value in environment.items())


def _too_large(config: RunConfig) -> Iterator[tuple[str, int]]:
    for environment in _environments(config):
        for name, value in environment.items():
            size = _value_bytes(value)
            if len(name.encode()) + size + 2 > MAX_ENTRY_BYTES:
                yield name, size


def _environments(config: RunConfig) -> Iterator[Mapping[str, Text]]:
    yield from (config.static_environment, config.environment)
    for task in config.tasks.values():
        if task.skip:
            continue
        yield task.environment
        yield from (container.environment for container in task.runtime.containers)
        yield from (step.environment for step in task.steps if step.environment)


def _value_bytes(value: Text) -> int:
    """Return the bytes of a value in plain text. A secret that is yet to be sealed has no key: its value is plain."""
    if isinstance(value, str) or not value.key:
        plain = value if isinstance(value, str) else value.value
        return len(plain) if plain.isascii() else len(plain.encode())
    encoded = value.value.rpartition(".")[2]  # without the prefix of a bound text
    return len(encoded) * 3 // 4 - encoded[-2:].count("=") - _SEALED_EXTRA_BYTES
