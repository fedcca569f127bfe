"""From what a request says of tasks (keyed by ids of its own) to a run config (keyed by name).

What cannot be kept by name, or that no executor could make sense of, is refused. What is wrong with the
graph itself (cycles, shared dependencies) is no bad request: it makes a run with setup errors (rule create-2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runstream.errors import BadRequestError
from runstream.events.run_config import (
    Concurrency,
    Container,
    Depend,
    GroupPolicy,
    RegistryAuth,
    Retry,
    RunConfig,
    RunConfigTask,
    Runtime,
    SaveContent,
    Step,
    Volume,
)
from runstream.gateway.bodies import (
    ConcurrencyBody,
    ContainerBody,
    CreateRunBody,
    RetryBody,
    RuntimeBody,
    StepBody,
    TaskBody,
)
from runstream.limits import MAX_NAME_BYTES, MAX_TASKS
from runstream.runconfig import REASONS

ARCHS = ("", "386", "amd64", "arm", "arm64")


def run_config_of(body: CreateRunBody, name: str) -> RunConfig:
    """The run config of a request, under a name, levels not worked out. Raises BadRequestError with every misfit."""
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
    """Raises BadRequestError unless the name has 1 to 100 bytes."""
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
            yield f"task {task.name!r} has a negative time-out"
        for parent, depend in task.depends.items():
            if parent not in tasks:
                yield f"task {task.name!r} depends on {parent!r}, which is not there"
            elif depend.task_id != parent:
                yield f"task {task.name!r} has the dependency {depend.task_id!r} under the key {parent!r}"
        yield from _runtime_problems(task)
        for index, step in enumerate(task.steps):
            yield from (f"step {index} of task {task.name!r} {text}" for text in _step_problems(step))


def _runtime_problems(task: TaskBody) -> Iterator[str]:
    if task.runtime.arch not in ARCHS:
        yield f"task {task.name!r} wants the architecture {task.runtime.arch!r}: there is 386, amd64, arm and arm64"
    if task.runtime.type == "pod" and not task.runtime.containers:
        yield f"task {task.name!r} runs in a pod without containers"
    if task.runtime.type == "host" and task.runtime.containers:
        yield f"task {task.name!r} runs on the host and has containers"
    if "" in task.runtime.labels:
        yield f"task {task.name!r} wants a label without a name"


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
    return RunConfigTask(
        name=task.name,
        level=0,
        depends=tuple(
            Depend(names[parent], tuple(depend.conditions) or ("on_success",))
            for parent, depend in task.depends.items()
        ),
        runtime=_runtime(task.runtime),
        environment=task.environment,
        working_dir=task.working_dir,
        shell=task.shell,
        user=task.user,
        steps=tuple(_step(step) for step in task.steps),
        ignore_failure=task.ignore_failure,
        skip=task.skip,
        needs_approval=task.needs_approval,
        docker_registries_auth={
            registry: RegistryAuth(auth.type, auth.username, auth.password, auth.auth)
            for registry, auth in task.docker_registries_auth.items()
        },
        task_timeout_interval=task.task_timeout_interval,
        retry=_retry(task.retry),
    )


def _retry(body: int | RetryBody) -> Retry | None:
    if isinstance(body, int):
        body = RetryBody(body)
    return Retry(body.max, body.backoff, tuple(reason for reason in REASONS if reason in body.on)) if body.max else None


def _runtime(runtime: RuntimeBody) -> Runtime:
    containers = tuple(_container(container) for container in runtime.containers)
    return Runtime(runtime.type, runtime.arch, containers, runtime.labels)


def _container(container: ContainerBody) -> Container:
    return Container(
        image=container.image,
        environment=container.environment,
        user=container.user,
        privileged=container.privileged,
        entrypoint=container.entrypoint,
        volumes=tuple(Volume(volume.path, volume.tmpfs.size) for volume in container.volumes),
    )


def _step(step: StepBody) -> Step:
    return Step(
        type=step.type,
        name=step.name,
        command=step.command,
        environment=step.environment or None,
        working_dir=step.working_dir,
        shell=step.shell,
        tty=step.tty is not False,
        depth=step.depth or 0,
        recurse_submodules=step.recurse_submodules,
        key=step.key,
        keys=tuple(step.keys),
        contents=tuple(SaveContent(c.source_dir, c.dest_dir, tuple(c.paths)) for c in step.contents),
        dest_dir=step.dest_dir,
        step_timeout_interval=step.step_timeout_interval,
        no_output_timeout=step.no_output_timeout,
    )
