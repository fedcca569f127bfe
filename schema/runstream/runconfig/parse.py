"""Parsing a whole configuration file, with every check (rules config-3 to config-5), before its ref is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import get_args

from runstream.counting import counted
from runstream.events.run_config import Concurrency, GroupPolicy, Retry
from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.fields import CONCURRENCY, RUN, TOP
from runstream.runconfig.foreign import FOREIGN_CONCURRENCY, FOREIGN_HINT, FOREIGN_RUN, FOREIGN_TOP, SYSTEMS
from runstream.runconfig.nodes import MappingNode, ScalarNode, SequenceNode, describe
from runstream.runconfig.problems import ConfigProblems, Problem, quoted
from runstream.runconfig.reading import Format, read_nodes
from runstream.runconfig.steps import RestoreCacheStep, SaveCacheStep, StepSpec
from runstream.runconfig.tasks import TaskSpec, decode_name, decode_retry, decode_tasks
from runstream.runconfig.templates import parse_template
from runstream.runconfig.values import RegistryAuthSpec, decode_registries
from runstream.runconfig.when import When, decode_when

MAX_RUNS = 1_000
"""Runs of one file."""
MAX_NOTICES = 20
"""Notices about one file."""
POLICIES: tuple[GroupPolicy, ...] = get_args(GroupPolicy)
MAX_WAITING = 1_000
"""The largest `max_waiting`."""
MAX_PRIORITY = 100
"""Priorities range from minus this to this."""
QUEUE = Concurrency("queue", 0)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run of a file, before variables are resolved."""

    name: str
    tasks: tuple[TaskSpec, ...]
    when: When | None
    docker_registries_auth: dict[str, RegistryAuthSpec]
    task_timeout_interval: int | None
    run_timeout_interval: int | None
    no_output_timeout: int | None
    retry: Retry | None
    concurrency: Concurrency
    priority: int
    fail_fast: bool = False


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    """A whole file. Its `warnings` name fields without effect."""

    runs: tuple[RunSpec, ...]
    docker_registries_auth: dict[str, RegistryAuthSpec]
    task_timeout_interval: int | None
    run_timeout_interval: int | None = None
    no_output_timeout: int | None = None
    retry: Retry | None = None
    warnings: tuple[Problem, ...] = ()


def parse_config(text: bytes | str, syntax: Format = "yaml", source: str = "config.yml") -> ParsedConfig:
    """Parse a file's text. Pure: opens no file.

    Raise ConfigError with all problems, each with its path (`runs[0].tasks[2]`) and line.
    """
    problems = ConfigProblems(lenient=".agola" in PurePath(source).parts)
    node = read_nodes(text, source, syntax)
    parsed = _top(Cursor(node if node is not None else ScalarNode(1, "", "null", plain=True), "", problems, 1))
    problems.raise_if_any(source)
    return replace(parsed, warnings=problems.warnings)


def _top(place: Cursor) -> ParsedConfig:
    node = place.node
    if isinstance(node, MappingNode):
        if system := _foreign_system(node):
            place.error(f"this looks like {system}: no runs defined", FOREIGN_HINT)
            return ParsedConfig((), {}, None)
        extensions = tuple(key.lower() for key in node.entries if key.lower().startswith("x-"))  # hold YAML anchors
        fields = place.fields(TOP, ignored=extensions, foreign=FOREIGN_TOP)
    elif place.is_null:
        fields = Fields(place, {})
    else:
        place.error(f"expected a map, found {describe(node)}", "a configuration is a map with a list `runs`")
        return ParsedConfig((), {}, None)
    runs = fields.get("runs")
    if runs is None or runs.node == SequenceNode(runs.node.line, ()):
        (runs or place).error("no runs defined", "a configuration has a list `runs`")
    return ParsedConfig(
        runs=tuple(_runs(fields)),
        docker_registries_auth=decode_registries(fields),
        task_timeout_interval=fields.duration("task_timeout_interval"),
        run_timeout_interval=fields.limit("run_timeout_interval"),
        no_output_timeout=fields.limit("no_output_timeout"),
        retry=decode_retry(fields),
    )


def _foreign_system(node: MappingNode) -> str:
    """Return the other CI system that this looks like a file of; empty for none."""
    if any(key.lower() == "runs" for key in node.entries):
        return ""
    systems = (system for system, words in SYSTEMS.items() if not node.entries.keys().isdisjoint(words))
    has_script = any(isinstance(one, MappingNode) and "script" in one.entries for one in node.entries.values())
    return next(systems, "a GitLab CI file" if has_script else "")


def _runs(fields: Fields) -> Iterator[RunSpec]:
    names: dict[str, int] = {}
    for index, place in enumerate(fields.items("runs")):
        if index == MAX_RUNS:
            place.error(f"a file has at most {MAX_RUNS} runs")
            return
        if place.is_null:
            place.error(f"run at index {index} is empty")
            continue
        run = place.fields(RUN, foreign=FOREIGN_RUN)
        name = decode_name(run, f"run at index {index}", "run", names)
        yield RunSpec(
            name=name,
            tasks=decode_tasks(run, name),
            when=decode_when(run),
            docker_registries_auth=decode_registries(run),
            task_timeout_interval=run.duration("task_timeout_interval"),
            run_timeout_interval=run.limit("run_timeout_interval"),
            no_output_timeout=run.limit("no_output_timeout"),
            retry=decode_retry(run),
            concurrency=_concurrency(run.get("concurrency")),
            priority=_priority(run.get("priority")),
            fail_fast=run.flag("fail_fast"),
        )


def _concurrency(place: Cursor | None) -> Concurrency:
    """Decode a policy, or a map of `policy` and `max_waiting`."""
    if place is None:
        return QUEUE
    if isinstance(place.node, ScalarNode) and place.node.kind == "str":
        return Concurrency(_policy(place), 0)
    if not isinstance(place.node, MappingNode):
        *first, last = POLICIES
        hint = f"a policy is {', '.join(first)} or {last}"
        place.error(f"expected a policy or a map, found {describe(place.node)}", hint)
        return QUEUE
    fields = place.fields(CONCURRENCY, strict=True, foreign=FOREIGN_CONCURRENCY)
    return Concurrency(_policy(fields.get("policy")), _max_waiting(fields.get("max_waiting")))


def _policy(place: Cursor | None) -> GroupPolicy:
    return "queue" if place is None else place.one_of(POLICIES, "policy") or "queue"


def _max_waiting(place: Cursor | None) -> int:
    if place is None:
        return 0
    bound = place.whole_number()
    if not 1 <= bound <= MAX_WAITING:
        place.error(
            f"the bound {bound} is not between 1 and {MAX_WAITING}",
            "leave it out for no bound; with the policy skip no run waits",
        )
        return 0
    return bound


def _priority(place: Cursor | None) -> int:
    if place is None:
        return 0
    priority = place.whole_number()
    if abs(priority) > MAX_PRIORITY:
        place.error(f"the priority {priority} is not between -{MAX_PRIORITY} and {MAX_PRIORITY}")
        return 0
    return priority


def notices(parsed: ParsedConfig, *, pods: bool = True) -> list[Problem]:
    """Return the first warnings for tasks without steps, unusable keys of caches and, unless `pods` is false, one
    warning for all tasks with containers."""
    found: list[Problem] = []
    with_pods: list[tuple[str, TaskSpec]] = []
    for run_index, run in enumerate(parsed.runs):
        for task_index, task in enumerate(run.tasks):
            path = f"runs[{run_index}].tasks[{task_index}]"
            if pods and task.runtime.type == "pod":
                with_pods.append((path, task))
            found += _task_notices(path, task)
    if with_pods:
        found.insert(0, _needs_engine(*with_pods[0], len(with_pods) - 1))
    return found[:MAX_NOTICES]


def _needs_engine(path: str, task: TaskSpec, others: int) -> Problem:
    tasks = f"task {quoted(task.name)} needs"
    if others:
        tasks = f"task {quoted(task.name)} and {counted(others, 'other task')} need"
    return Problem(
        f"{path}.runtime",
        0,
        f"{tasks} an executor that runs containers",
        "give an executor an engine (`executor.engine` in its settings), or write `runtime: {type: host}`",
    )


def _keys(step: StepSpec) -> tuple[str, ...]:
    match step:
        case SaveCacheStep(key=key):
            return (key,)
        case RestoreCacheStep(keys=keys):
            return keys
        case _:
            return ()


def _task_notices(path: str, task: TaskSpec) -> Iterator[Problem]:
    if not task.steps:
        yield Problem(f"{path}.steps", 0, f"task {quoted(task.name)} has no steps: it does nothing", "add `steps`")
    for index, step in enumerate(task.steps):
        for key in _keys(step):
            try:
                parse_template(key)
            except ValueError as error:
                yield Problem(f"{path}.steps[{index}]", 0, f"the key is not a template: {error}", "its step will fail")
