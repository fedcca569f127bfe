"""From a request to the runs to create.

POST /runs has resolved tasks, keyed by ids of the client (rules create-1 to create-3); a run config keys them by name.
A request that no run config can express is refused. A graph with cycles or shared dependencies is no bad request: it
makes a run with setup errors (rule create-2). POST /createruns has a configuration file (rules create-5 to create-8).

A task that no living executor can run is worth a warning: its run waits, and later runs of its group behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from runstream.api import SkippedRun
from runstream.counting import listed
from runstream.domain.executor import Demand, Offer, demand_of, lacks, needed
from runstream.errors import BadRequestError
from runstream.evaluation.reader import ConfigReader
from runstream.events.run_config import (
    Concurrency,
    Container,
    Depend,
    GroupPolicy,
    Retry,
    RunConfig,
    RunConfigTask,
    Runtime,
    Step,
    Text,
    Volume,
)
from runstream.gateway.requests import (
    ConcurrencyBody,
    ContainerBody,
    CreateRunBody,
    CreateRunsBody,
    FreshBody,
    RetryBody,
    StepBody,
    TaskBody,
    converted,
)
from runstream.gateway.runs.create import PreparedRun
from runstream.gateway.runs.repository_paths import URL_NAMES
from runstream.git.committed import CommittedConfig
from runstream.limits import MAX_NAME_BYTES, MAX_TASKS, require_group
from runstream.runconfig.containers import container_problems
from runstream.runconfig.graph import check_graph, with_levels
from runstream.runconfig.parse import ParsedConfig, notices
from runstream.runconfig.problems import ConfigError, Problem, as_errors, quoted
from runstream.runconfig.refs import RefContext, config_context, ref_context, run_group, skip_mark, static_environment
from runstream.runconfig.resolve import require_fitting_environment, run_configs
from runstream.runconfig.tasks import ARCHS, REASONS
from runstream.runconfig.variables import InputValues, read_inputs, resolve
from runstream.sealing import to_seal

_PASSING = frozenset({"draining", "disk"})
"""Lacks that an executor has only for a while."""
MAX_WARNINGS = 20


def capability_warnings(configs: Iterable[RunConfig], offers: Mapping[str, Offer]) -> list[Problem]:
    """Return a warning for each kind of task that no executor can run; none while there are no executors."""
    why: dict[Demand, str] = {}
    unfit: dict[tuple[str, Demand], list[RunConfigTask]] = {}
    for config in configs if offers else ():
        for task in config.tasks.values():
            demand = demand_of(task.runtime)
            if demand not in why:
                why[demand] = _why_not(offers, demand)
            if why[demand] and not task.skip:
                unfit.setdefault((config.name, demand), []).append(task)
    return [
        Problem(
            "",
            0,
            f"no executor here can run task {listed(quoted(task.name) for task in tasks)} of run {quoted(run)} "
            f"(needed: {needed(tasks[0].runtime)}): {why[demand]}",
            "the run waits until one can, and later runs of its group with it: `runstream executor list`",
        )
        for (run, demand), tasks in list(unfit.items())[:MAX_WARNINGS]
    ]


def _why_not(offers: Mapping[str, Offer], demand: Demand) -> str:
    """Return what each executor permanently lacks for such a task; empty when one lacks nothing."""
    found = {
        name: [lack.sentence for lack in lacks(offer, demand) if lack.requirement not in _PASSING]
        for name, offer in sorted(offers.items())
    }
    if not all(found.values()):
        return ""
    return listed((f"{name} {' and '.join(sentences)}" for name, sentences in found.items()), separator="; ")


def run_config_of(body: CreateRunBody, name: str) -> RunConfig:
    """Return the run config of a request, without levels. Raises BadRequestError that lists every problem."""
    tasks = body.run_config_tasks or {}
    problems = list(_problems(tasks))
    if problems:
        raise BadRequestError(
            f"the tasks of the run do not fit together: {'; '.join(problems)}",
            code="invalidRunConfigTasks",
            details={"errors": problems},
        )
    names = {key: task.name for key, task in tasks.items()}
    return RunConfig(
        name=name,
        tasks={task.name: _task(task, names) for task in tasks.values()},
        static_environment=body.static_environment,
        environment=body.environment or {},
        cache_group=body.cache_group,
        run_timeout_interval=body.run_timeout_interval,
        concurrency=_concurrency(body.concurrency),
        priority=body.priority,
        fail_fast=body.fail_fast,
    )


def _concurrency(body: GroupPolicy | ConcurrencyBody) -> Concurrency:
    if isinstance(body, ConcurrencyBody):
        return Concurrency(body.policy, body.max_waiting)
    return Concurrency(body, 0)


def require_name(name: str, what: str) -> None:
    """Raise BadRequestError unless the name has 1 to 100 bytes."""
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise BadRequestError(
            f"{what} {name[:MAX_NAME_BYTES]!r} is empty or too long",
            code="invalidName",
            hint=f"a name has 1 to {MAX_NAME_BYTES} bytes",
        )


def _problems(tasks: Mapping[str, TaskBody]) -> Iterator[str]:
    if len(tasks) > MAX_TASKS:
        yield f"a run has at most {MAX_TASKS} tasks, this one has {len(tasks)}"
        return
    seen: set[str] = set()
    for key, task in tasks.items():
        if not 0 < len(task.name.encode()) <= MAX_NAME_BYTES:
            yield f"task {key!r} has a name that is empty or longer than {MAX_NAME_BYTES} bytes"
        if task.name in seen:
            yield f"two tasks have the name {task.name!r}"
        seen.add(task.name)
        if task.id and task.id != key:
            yield f"task {task.name!r} has the id {task.id!r} under the key {key!r}"
        if task.task_timeout_interval < 0:
            yield f"task {task.name!r} has a negative timeout"
        for parent, depend in task.depends.items():
            if parent not in tasks:
                yield f"task {task.name!r} depends on {parent!r}, which is not there"
            elif depend.task_id != parent:
                yield f"task {task.name!r} has the dependency {depend.task_id!r} under the key {parent!r}"
        yield from _runtime_problems(task)
        for index, step in enumerate(task.steps):
            yield from (f"step {index} of task {task.name!r} {text}" for text in _step_problems(step))


def _runtime_problems(task: TaskBody) -> Iterator[str]:
    if task.runtime.arch not in ("", *ARCHS):
        yield f"task {task.name!r} needs the architecture {task.runtime.arch!r}; there are 386, amd64, arm and arm64"
    if task.runtime.type == "pod" and not task.runtime.containers:
        yield f"task {task.name!r} runs in a pod without containers"
    if task.runtime.type == "host" and task.runtime.containers:
        yield f"task {task.name!r} runs on the host and has containers"
    if "" in task.runtime.labels:
        yield f"task {task.name!r} needs a label without a name"
    for index, container in enumerate(map(_container, task.runtime.containers)):
        for problem in container_problems(container.resources, container.volumes):
            yield f"task {task.name!r}: runtime.containers[{index}].{problem}"


def _step_problems(step: StepBody) -> Iterator[str]:
    if step.no_output_timeout and step.type != "run":
        yield "has a no_output_timeout, which is for run steps"
    match step.type:
        case "run" if not step.command:
            yield "has no command"
        case "clone" if step.depth is not None and step.depth < 1:
            yield "has a depth below 1"
        case "save_cache" if not step.key:
            yield "has no key"
        case "restore_cache" if not step.keys:
            yield "has no keys"


def _task(task: TaskBody, names: Mapping[str, str]) -> RunConfigTask:
    depends = [
        Depend(names[parent], tuple(depend.conditions) or ("on_success",)) for parent, depend in task.depends.items()
    ]
    containers = [_container(container) for container in task.runtime.containers]
    return converted(
        task,
        RunConfigTask,
        level=0,
        depends=depends,
        runtime=converted(task.runtime, Runtime, containers=containers),
        steps=[_step(step) for step in task.steps],
        retry=_retry(task.retry),
    )


def _retry(body: int | RetryBody) -> Retry | None:
    if isinstance(body, int):
        body = RetryBody(body)
    return Retry(body.max, body.backoff, tuple(reason for reason in REASONS if reason in body.on)) if body.max else None


def _container(container: ContainerBody) -> Container:
    return converted(container, Container, volumes=[Volume(one.path, one.tmpfs.size) for one in container.volumes])


def _step(step: StepBody) -> Step:
    return converted(step, Step, environment=step.environment or None, tty=step.tty is not False, depth=step.depth or 0)


SETUP_ERROR = "Setup Error"
MAX_PATH = 1024
"""Characters of a configuration file's path that messages show."""
DIRECT_ROOT = "/user/admin"
"""The group root of runs that name neither group nor project."""


def prepare_run(body: CreateRunBody) -> PreparedRun:
    """Return the run of POST /runs. A graph that cannot run makes a run with setup errors. Raises BadRequestError."""
    require_group(body.group)
    if body.run_config_tasks is None and not body.setup_errors:
        raise BadRequestError(
            "the run has neither run_config_tasks nor setup_errors",
            code="invalidRunConfigTasks",
            hint="send the tasks by their ids, or {} for a run without tasks",
        )
    name = body.name or (SETUP_ERROR if body.setup_errors else "")
    require_name(name, "run name")
    config = run_config_of(body, name)
    require_fitting_environment(config)
    errors = (*body.setup_errors, *check_graph(config.tasks))
    if not errors:
        config = replace(config, tasks=with_levels(config.tasks))
    return PreparedRun(body.group, config, body.annotations, errors)


@dataclass(frozen=True, slots=True)
class PreparedRuns:
    """The runs of a file: those to create, those that are skipped, and warnings."""

    runs: list[PreparedRun]
    skipped: list[SkippedRun]
    warnings: list[Problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSource:
    """The ref for which a configuration is evaluated, and what its runs have beside the file."""

    context: RefContext
    group: str
    message: str = ""
    """Of the commit; with `[ci skip]` in it, no run is created."""
    annotations: Mapping[str, str]
    inputs: Callable[[], InputValues]
    """Return variables and secrets. Raises BadRequestError."""
    environment: Mapping[str, str] = field(default_factory=dict)
    static: Mapping[str, Text] = field(default_factory=dict)
    """Credentials of the repository, marked to be sealed."""
    cache_group: str = ""
    priority: int | None = None
    repository: str = ""
    """The user's repository that the tasks clone, as `RepositoryName` shows it; empty for another one."""


async def prepare_runs(body: CreateRunsBody, configs: ConfigReader, offers: Mapping[str, Offer]) -> PreparedRuns:
    """Return the runs of the file for this branch, tag or ref; texts from secrets are marked to be sealed.

    An invalid file makes one run that shows its problems, if the body asks for that. Else raises ConfigError with all
    of them, or EvaluationError for a program that fails. `offers` are those of the living executors.
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
    source = RunSource(
        context=context,
        group=group,
        message=body.message,
        annotations=_annotations(body, context) | body.annotations,
        inputs=partial(inputs_of, body),
        environment=body.environment,
        cache_group=body.cache_group,
        priority=body.priority,
    )
    file = body.config
    path = file.path[:MAX_PATH]
    try:
        then = partial(_matching, source, offers)
        requested = await configs.read(file.name, file.content, context, then, file.imports, path)
        requested.warnings[:0] = [Problem("", 0, warning) for warning in body.warnings]
        if body.strict and requested.warnings:
            raise ConfigError(path or file.name, as_errors(requested.warnings))
        return requested
    except BadRequestError as error:
        if body.on_setup_error == "refuse":
            raise
        return PreparedRuns([_setup_error(source, error)], [], [])


async def prepare_committed(
    file: CommittedConfig, source: RunSource, configs: ConfigReader, offers: Mapping[str, Offer]
) -> PreparedRuns:
    """Return the runs of a commit's file; an invalid file makes one run that shows its problems (rule create-7)."""
    try:
        then = partial(_matching, source, offers)
        return await configs.read(file.name, file.content, source.context, then, file.imports, file.path)
    except BadRequestError as error:
        return PreparedRuns([_setup_error(source, error)], [], [])


def _matching(source: RunSource, offers: Mapping[str, Offer], parsed: ParsedConfig) -> PreparedRuns:
    inputs = source.inputs()
    variables = resolved_variables(inputs, source.context)
    skip_all = bool(skip_mark(source.message))
    runs: list[PreparedRun] = []
    skipped: list[SkippedRun] = []
    for run in run_configs(
        parsed,
        source.context,
        variables,
        environment=source.environment,
        cache_group=source.cache_group,
        priority=source.priority,
    ):
        if run.matches and not skip_all:
            config = replace(run.config, static_environment={**run.config.static_environment, **source.static})
            _require_sources(config, source)
            require_fitting_environment(config)
            runs.append(_prepared(source, config, ()))
        else:
            skipped.append(SkippedRun(run.name, "ci_skip" if skip_all else "when"))
    cannot_run = capability_warnings((run.config for run in runs), offers)
    warnings = [*parsed.warnings, *notices(parsed, pods=not offers), *cannot_run, *inputs.warnings]
    return PreparedRuns(runs, skipped, warnings)


def _prepared(source: RunSource, config: RunConfig, setup_errors: tuple[str, ...]) -> PreparedRun:
    return PreparedRun(
        source.group,
        config,
        dict(source.annotations),
        setup_errors,
        repository="" if setup_errors else source.repository,
    )


def _require_sources(config: RunConfig, source: RunSource) -> None:
    """Raise BadRequestError for a clone step in a run that has no repository: its task could only fail."""
    if source.context.repository_url or not URL_NAMES.isdisjoint(source.environment):
        return
    for task in config.tasks.values():
        if not task.skip and any(step.type == "clone" for step in task.steps):
            raise BadRequestError(
                f"task {task.name!r} of run {config.name!r} has a clone step, and the run has no repository",
                code="repositoryMissing",
                hint="give the repository (--repo, repository_url), or create the run in one that has a commit",
            )


def _setup_error(source: RunSource, error: BadRequestError) -> PreparedRun:
    """Return the run that shows what is wrong with the file (rule create-7)."""
    if isinstance(error, ConfigError):
        more = [f"and {error.omitted} more"] if error.omitted else []
        texts = [f"{error.source}: {problem}" for problem in error.problems] + more
    else:
        texts = [error.message]
    static = {**static_environment(source.context), **source.static}
    return _prepared(source, RunConfig(SETUP_ERROR, {}, static, dict(source.environment), ""), tuple(texts))


def inputs_of(body: CreateRunsBody | FreshBody) -> InputValues:
    """Read the variables and secrets of a request. Raises ConfigError with every problem of a file."""
    variable_files, secret_files = (
        [(file.name, file.content) for file in files] for files in (body.variable_files, body.secret_files)
    )
    return read_inputs(body.variables, variable_files, secret_files)


def resolved_variables(inputs: InputValues, context: RefContext) -> dict[str, Text]:
    """Return the values of the inputs for these sources; those of secrets are marked to be sealed."""
    resolved = resolve(inputs.variables, inputs.secrets, context)
    return {**resolved.texts, **{name: to_seal(text) for name, text in resolved.secrets.items()}}


def _default_group(context: RefContext) -> str:
    named = context.branch or context.tag or context.pull_request_id
    return run_group(DIRECT_ROOT, context) if named else f"{DIRECT_ROOT}/direct"


def _annotations(body: CreateRunsBody, context: RefContext) -> dict[str, str]:
    """Return annotations about the sources (rule create-8), without empty ones."""
    known = {"run_creation_trigger": "manual", **config_context(context), "message": body.message}
    return {name: value for name, value in known.items() if value}
