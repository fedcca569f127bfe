"""The tasks of a run: where each runs (rule config-6), what it waits for (rule config-9), and when it is retried."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import get_args

from runstream.events.run_config import (
    DEFAULT_WORKING_DIR,
    Condition,
    Resources,
    Retry,
    RetryReason,
    RuntimeType,
    Volume,
)
from runstream.limits import MAX_NAME_BYTES, MAX_TASKS
from runstream.runconfig.amounts import format_duration
from runstream.runconfig.containers import container_problems
from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.fields import CONTAINER, DEPEND, RESOURCES, RETRY, RUNTIME, TASK, TMPFS, VOLUME
from runstream.runconfig.foreign import FOREIGN_CONTAINER, FOREIGN_DEPEND, FOREIGN_RETRY, FOREIGN_RUNTIME, FOREIGN_TASK
from runstream.runconfig.graph import common_dependencies, cycle_errors, shortest_cycle
from runstream.runconfig.nodes import MappingNode, ScalarNode, SequenceNode, describe
from runstream.runconfig.problems import quoted, suggestion
from runstream.runconfig.steps import StepSpec, decode_steps
from runstream.runconfig.values import RegistryAuthSpec, Value, decode_environment, decode_registries
from runstream.runconfig.when import When, decode_when

ARCHS = ("386", "amd64", "arm", "arm64")
TYPES: tuple[RuntimeType, ...] = get_args(RuntimeType)
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
REASONS: tuple[RetryReason, ...] = get_args(RetryReason)
MAX_RETRIES = 10
MAX_BACKOFF = 24 * 3_600_000_000_000
"""Nanoseconds."""
_MAX_CYCLE_NAMES = 5
"""Tasks of a cycle that a hint names."""
_DEPEND_HINT = "write a task's name, {task: NAME, conditions: [...]} or {NAME: [conditions]}"
_RETRY_HINT = "such as 2, or {max: 2, backoff: 10s, on: [failure, lost, timeout]}"


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container of a pod, before variables are resolved."""

    image: str
    environment: dict[str, Value]
    user: str
    privileged: bool
    entrypoint: str
    volumes: tuple[Volume, ...]
    resources: Resources


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """The runtime of a task. A pod has at least one container, a host none."""

    type: RuntimeType
    arch: str
    """Empty for any."""
    containers: tuple[ContainerSpec, ...]
    labels: dict[str, str]
    """Labels that the executor must have."""


@dataclass(frozen=True, slots=True)
class DependSpec:
    """A dependency on a task, as written."""

    task: str
    conditions: tuple[Condition, ...]
    """Empty for the default, on_success."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task of a run, before variables are resolved."""

    name: str
    runtime: RuntimeSpec
    environment: dict[str, Value]
    working_dir: str
    shell: str
    """Empty for the default."""
    user: str
    steps: tuple[StepSpec, ...]
    depends: tuple[DependSpec, ...]
    ignore_failure: bool
    approval: bool
    when: When | None
    docker_registries_auth: dict[str, RegistryAuthSpec]
    task_timeout_interval: int | None
    """Nanoseconds; None for the run's."""
    no_output_timeout: int | None
    retry: Retry | None


_Dependencies = dict[str, tuple[Cursor, list[tuple[Cursor, DependSpec]]]]
"""The place of each task, with its dependencies and their places."""


def decode_tasks(run: Fields, run_name: str) -> tuple[TaskSpec, ...]:
    """Decode the field `tasks` of a run, and check the graph of the tasks."""
    names: dict[str, int] = {}
    tasks: list[TaskSpec] = []
    dependencies: _Dependencies = {}
    for index, place in enumerate(run.items("tasks")):
        owner = f"run {quoted(run_name)}: task at index {index}"
        if index == MAX_TASKS:
            place.error(f"a run has at most {MAX_TASKS} tasks")
            return ()
        if place.is_null:
            place.error(f"{owner} is empty")
            continue
        fields = place.fields(TASK, foreign=FOREIGN_TASK)
        name = decode_name(fields, owner, "task", names)
        depends = _depends(fields)
        dependencies.setdefault(name, (place, depends))
        tasks.append(_task(fields, name, tuple(depend for _, depend in depends)))
    _check_dependencies(dependencies, {task.name for task in tasks if task.ignore_failure})
    return tuple(tasks)


def decode_name(fields: Fields, owner: str, what: str, names: dict[str, int]) -> str:
    """Decode the unique name of a run or task. `names` has the lines of the names so far, and gets this one's."""
    place, name = fields.get("name"), fields.text("name")
    if place is None or (not name and isinstance(place.node, ScalarNode)):
        (place or fields.place).error(f"{owner} has empty name", "add a name field")
        return ""
    if len(name.encode()) > MAX_NAME_BYTES:
        place.error(f"{what} name {quoted(name)} too long", f"at most {MAX_NAME_BYTES} bytes")
    place.require_printable(name, f"{what} name")
    if name in names:
        hint = f"the first is on line {names[name]}" if names[name] else ""
        place.error(f"duplicate {what} name {quoted(name)}", hint)
    names.setdefault(name, place.line)
    return name


def _task(fields: Fields, name: str, depends: tuple[DependSpec, ...]) -> TaskSpec:
    return TaskSpec(
        name=name,
        runtime=_runtime(fields, f"task {quoted(name)}"),
        environment=decode_environment(fields),
        working_dir=fields.text("working_dir") or DEFAULT_WORKING_DIR,
        shell=fields.text("shell"),
        user=fields.text("user"),
        steps=decode_steps(fields),
        depends=depends,
        ignore_failure=fields.flag("ignore_failure"),
        approval=fields.flag("approval"),
        when=decode_when(fields),
        docker_registries_auth=decode_registries(fields),
        task_timeout_interval=fields.duration("task_timeout_interval"),
        no_output_timeout=fields.limit("no_output_timeout"),
        retry=decode_retry(fields),
    )


def _runtime(fields: Fields, owner: str) -> RuntimeSpec:
    place = fields.get("runtime")
    if place is None:
        fields.place.error(f"{owner}: runtime is not defined", "add `runtime: {type: host}`, or a pod with containers")
        return RuntimeSpec("pod", "", (), {})
    found = place.fields(RUNTIME, foreign=FOREIGN_RUNTIME)
    runtime_type, arch = found.text("type") or "pod", found.text("arch")
    if runtime_type not in TYPES:
        place.error(f"{owner} runtime: wrong type {quoted(runtime_type)}", suggestion(runtime_type, TYPES))
    if arch and arch not in ARCHS:
        place.error(f"{owner} runtime: invalid arch {quoted(arch)}", suggestion(arch, ARCHS))
    containers = tuple(_container(item) for item in found.items("containers"))
    if runtime_type == "pod" and not containers:
        place.error(f"{owner} runtime: at least one container must be defined", "or write `type: host`")
    if runtime_type == "host" and containers:
        place.error(f"{owner} runtime: a host has no containers", "leave containers out, or write `type: pod`")
    return RuntimeSpec("host" if runtime_type == "host" else "pod", arch, containers, _labels(found))


def _labels(fields: Fields) -> dict[str, str]:
    place = fields.get("labels")
    if place is None:
        return {}
    labels = {}
    for name, value in place.entries():
        if not name:
            value.error("the label has no name", "labels are written `name: value`")
        value.require_printable(name, "the label")
        labels[name] = text = value.text()
        value.require_printable(text, "the value of the label")
    return labels


def _container(place: Cursor) -> ContainerSpec:
    if place.is_null:
        place.error("the container is empty")
        return ContainerSpec("", {}, "", False, "", (), Resources())
    fields = place.fields(CONTAINER, foreign=FOREIGN_CONTAINER)
    for name in ("image", "user"):
        if (found := fields.get(name)) is not None:
            found.require_printable(found.text(), name)
    resources = _resources(fields)
    volumes = tuple(_volume(item) for item in fields.items("volumes"))
    for problem in container_problems(resources, volumes):
        place.nearest(*problem.field).error(problem.message, problem.hint)
    return ContainerSpec(
        image=fields.text("image"),
        environment=decode_environment(fields),
        user=fields.text("user"),
        privileged=fields.flag("privileged"),
        entrypoint=fields.text("entrypoint"),
        volumes=volumes,
        resources=resources,
    )


def _resources(fields: Fields) -> Resources:
    place = fields.get("resources")
    if place is None:
        return Resources()
    found = place.fields(RESOURCES)
    return Resources(found.processors("cpu"), found.size("memory"))


def _volume(place: Cursor) -> Volume:
    if place.is_null:  # the volume without a path is reported
        return Volume("", 0)
    fields = place.fields(VOLUME)
    tmpfs = fields.get("tmpfs")
    if tmpfs is None:
        place.error("the volume has no tmpfs", "tmpfs is the only kind of volume; `tmpfs: {}` has no limit")
        return Volume(fields.text("path"), 0)
    return Volume(fields.text("path"), tmpfs.fields(TMPFS).size("size"))


def _depends(fields: Fields) -> list[tuple[Cursor, DependSpec]]:
    found = ((place, _depend(place)) for place in fields.items("depends"))
    return [(place, depend) for place, depend in found if depend is not None]


def _depend(place: Cursor) -> DependSpec | None:
    match place.node:
        case ScalarNode(kind="str", text=task):
            return DependSpec(task, ())
        case MappingNode(entries=entries):
            keys = list(entries)
            if len(keys) == 1 and isinstance(entries[keys[0]], SequenceNode):
                return DependSpec(keys[0], _conditions(place.at(place.node, keys[0])))
            return _depend_fields(place)
        case node:
            place.error(f"unsupported depend entry format: {describe(node)}", _DEPEND_HINT)
            return None


def _depend_fields(place: Cursor) -> DependSpec | None:
    before = len(place.problems)
    fields = place.fields(DEPEND, foreign=FOREIGN_DEPEND)
    if fields.get("task") is None:
        if len(place.problems) == before:
            place.error("unsupported depend entry format: no task is named", _DEPEND_HINT)
        return None
    conditions = fields.get("conditions")
    return DependSpec(fields.strict_text("task"), () if conditions is None else _conditions(conditions))


def _conditions(place: Cursor) -> tuple[Condition, ...]:
    found = (item.one_of(CONDITIONS, "condition") for item in place.items())
    return tuple(condition for condition in found if condition is not None)


def decode_retry(fields: Fields) -> Retry | None:
    """Decode the field `retry`: a number of retries, or a map. 0 turns retries of the level above off."""
    place = fields.get("retry")
    if place is None:
        return None
    if isinstance(place.node, MappingNode):
        return _retry(place.fields(RETRY, strict=True, foreign=FOREIGN_RETRY))
    if isinstance(place.node, ScalarNode) and place.node.kind in ("int", "float"):
        return Retry(_max_retries(place), 0, REASONS)
    place.error(f"expected a number or a map, found {describe(place.node)}", _RETRY_HINT)
    return None


def _retry(fields: Fields) -> Retry:
    place = fields.get("max")
    if place is None:
        fields.place.error("retry needs max: how often the task is tried again", _RETRY_HINT)
    backoff = fields.limit("backoff") or 0
    if backoff > MAX_BACKOFF:
        fields.found["backoff"].error(f"the backoff is longer than {format_duration(MAX_BACKOFF)}")
    retries = 0 if place is None else _max_retries(place)
    return Retry(retries, min(backoff, MAX_BACKOFF), _reasons(fields.get("on")))


def _max_retries(place: Cursor) -> int:
    number = place.whole_number()
    if not 0 <= number <= MAX_RETRIES:
        place.error(f"{number} is not between 0 and {MAX_RETRIES}", "it counts the attempts after the first")
        return 0
    return number


def _reasons(place: Cursor | None) -> tuple[RetryReason, ...]:
    """Decode the reasons for a retry, all by default. They are in a fixed order, so that equal sets compare equal."""
    if place is None:
        return REASONS
    if place.node == SequenceNode(place.node.line, ()):
        place.error("no reason is named", suggestion("", REASONS))
    items = [place] if isinstance(place.node, ScalarNode) else place.items()
    named = {item.one_of(REASONS, "reason") for item in items}
    return tuple(reason for reason in REASONS if reason in named)


def _check_dependencies(dependencies: _Dependencies, ignored_failures: Collection[str]) -> None:
    """Report dependencies on unknown tasks, duplicate ones, cycles, and redundant ones."""
    for name, (_, depends) in dependencies.items():
        seen: set[str] = set()
        for place, depend in depends:
            if depend.task not in dependencies:
                hint = "" if place.problems.full else suggestion(depend.task, dependencies)
                place.error(f"run task {quoted(depend.task)} needed by task {quoted(name)} doesn't exist", hint)
            elif depend.task in seen:
                place.error(f"duplicate task dependency: task {quoted(name)} names {quoted(depend.task)} twice")
            seen.add(depend.task)
    parents = {name: [depend.task for _, depend in depends] for name, (_, depends) in dependencies.items()}
    cycles = cycle_errors(parents)
    explained: set[str] = set()
    for name, message in cycles.items():
        place = dependencies[name][0]
        cycle = [] if name in explained or place.problems.full else shortest_cycle(parents, name)
        explained.update(cycle)
        place.error(message, _cycle_hint(cycle) if cycle else "")
    if not cycles:
        _check_redundant(dependencies, parents)
        _warn_of_unreached_failures(dependencies, ignored_failures)


def _cycle_hint(cycle: list[str]) -> str:
    names = [quoted(name) for name in cycle[:_MAX_CYCLE_NAMES]] + (["…"] if len(cycle) > _MAX_CYCLE_NAMES else [])
    return f"{' needs '.join((*names, quoted(cycle[0])))}: leave one of these dependencies out"


def _check_redundant(dependencies: _Dependencies, parents: dict[str, list[str]]) -> None:
    for name, parent, dependency in common_dependencies(parents):
        place = dependencies[name][0]
        if place.problems.full:
            return
        place.error(
            f"task {quoted(name)} and its dependency {quoted(parent)} have both a dependency on task "
            f"{quoted(dependency)}",
            f"leave {quoted(dependency)} out of the task's depends",
        )


def _warn_of_unreached_failures(dependencies: _Dependencies, ignored_failures: Collection[str]) -> None:
    """Warn of an on_failure dependency that misses failures before its parent: these skip the parent."""
    for name, (_, depends) in dependencies.items():
        for place, depend in depends:
            if "on_failure" not in depend.conditions or not {"on_skipped", "always"}.isdisjoint(depend.conditions):
                continue
            before = [
                one.task
                for _, one in dependencies.get(depend.task, (place, []))[1]
                if one.task not in ignored_failures and {"on_failure", "always"}.isdisjoint(one.conditions)
            ]
            if before:
                place.warn(
                    f"a failure of task {quoted(before[0])} does not reach task {quoted(name)}: "
                    f"it skips task {quoted(depend.task)}",
                    "add on_skipped, or use always",
                )
