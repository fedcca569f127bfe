"""The whole file from its nodes: top level, runs and tasks, with every check (rules config-3 to config-5)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import PurePath

from runstream.limits import MAX_NAME_BYTES, MAX_TASKS
from runstream.runconfig.concurrency import decode_concurrency, decode_priority
from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.depends import DependSpec, decode_depends
from runstream.runconfig.fields import RUN, TASK, TOP
from runstream.runconfig.foreign import FOREIGN_HINT, FOREIGN_RUN, FOREIGN_TASK, FOREIGN_TOP, SYSTEMS
from runstream.runconfig.graph import circle, common_dependencies, cycle_errors
from runstream.runconfig.limits import decode_interval, decode_limit, decode_retry
from runstream.runconfig.nodes import Mapping, Node, Scalar, Sequence, describe
from runstream.runconfig.parsed import ParsedConfig, RunSpec, TaskSpec
from runstream.runconfig.problems import Problems, nearest, shown
from runstream.runconfig.reading import Format, read_nodes
from runstream.runconfig.runtime import decode_runtime
from runstream.runconfig.steps import decode_steps
from runstream.runconfig.values import decode_environment, decode_registries
from runstream.runconfig.when import decode_when

MAX_RUNS = 1_000
"""In one file."""
_SHOWN_CIRCLE = 5
"""Tasks of a circle that a hint names."""
DEFAULT_WORKING_DIR = "~/project"


def parse_config(text: bytes | str, syntax: Format = "yaml", source: str = "config.yml") -> ParsedConfig:
    """The configuration that a file's text is, checked. Pure: no file is read.

    Raises ConfigError with every problem at once, each with its path (`runs[0].tasks[2]`) and line.
    """
    problems = Problems(lenient=".agola" in PurePath(source).parts)
    node = read_nodes(text, source, syntax)
    parsed = _top(Cursor(node if node is not None else Scalar(1, "", "null", plain=True), "", problems, 1))
    problems.raise_if_any(source)
    return replace(parsed, warnings=problems.warnings)


def _top(place: Cursor) -> ParsedConfig:
    if not place.is_null and not isinstance(place.node, Mapping):
        place.wrong(f"expected a map, found {describe(place.node)}", "a configuration is a map with a list `runs`")
        return ParsedConfig((), {}, None)
    if isinstance(place.node, Mapping) and (system := _system(place.node)):
        place.wrong(f"this looks like {system}: no runs defined", FOREIGN_HINT)
        return ParsedConfig((), {}, None)
    extensions = () if place.is_null else _extensions(place.node)
    fields = Fields(place, {}) if place.is_null else place.fields(TOP, ignored=extensions, foreign=FOREIGN_TOP)
    runs = fields.get("runs")
    if runs is None or runs.node == Sequence(runs.node.line, ()):
        (runs or place).wrong("no runs defined", "a configuration has a list `runs`")
    return ParsedConfig(
        runs=tuple(_runs(fields)),
        docker_registries_auth=decode_registries(fields),
        task_timeout_interval=decode_interval(fields, "task_timeout_interval"),
        run_timeout_interval=decode_limit(fields, "run_timeout_interval"),
        no_output_timeout=decode_limit(fields, "no_output_timeout"),
        retry=decode_retry(fields),
    )


def _system(node: Mapping) -> str:
    """The other CI system whose file this looks like; empty for none."""
    if any(key.lower() == "runs" for key in node.entries):
        return ""
    told = (system for system, words in SYSTEMS.items() if not node.entries.keys().isdisjoint(words))
    has_script = any(isinstance(one, Mapping) and "script" in one.entries for one in node.entries.values())
    return next(told, "a GitLab CI file" if has_script else "")


def _extensions(node: Node) -> tuple[str, ...]:
    """Keys in which a file may keep what its aliases name."""
    return (
        tuple(key.lower() for key in node.entries if key.lower().startswith("x-")) if isinstance(node, Mapping) else ()
    )


def _runs(fields: Fields) -> Iterator[RunSpec]:
    names: dict[str, int] = {}
    for index, place in enumerate(fields.items("runs")):
        if index == MAX_RUNS:
            place.wrong(f"a file has at most {MAX_RUNS} runs")
            return
        if place.is_null:
            place.wrong(f"run at index {index} is empty")
            continue
        run = place.fields(RUN, foreign=FOREIGN_RUN)
        name = _name(run, f"run at index {index}", "run", names)
        yield RunSpec(
            name=name,
            tasks=_tasks(run, name),
            when=decode_when(run),
            docker_registries_auth=decode_registries(run),
            task_timeout_interval=decode_interval(run, "task_timeout_interval"),
            run_timeout_interval=decode_limit(run, "run_timeout_interval"),
            no_output_timeout=decode_limit(run, "no_output_timeout"),
            retry=decode_retry(run),
            concurrency=decode_concurrency(run),
            priority=decode_priority(run),
            fail_fast=run.flag("fail_fast"),
        )


def _name(fields: Fields, owner: str, what: str, names: dict[str, int]) -> str:
    """The name that a run or task must have, once; `names` has the line of each name seen before."""
    place, name = fields.get("name"), fields.text("name")
    if place is None or (not name and isinstance(place.node, Scalar)):
        (place or fields.place).wrong(f"{owner} has empty name", "add a name field")
        return ""
    if len(name.encode()) > MAX_NAME_BYTES:
        place.wrong(f"{what} name {shown(name)} too long", f"at most {MAX_NAME_BYTES} bytes")
    place.require_shown(name, f"{what} name")
    if name in names:
        hint = f"the first is on line {names[name]}" if names[name] else ""
        place.wrong(f"duplicate {what} name {shown(name)}", hint)
    names.setdefault(name, place.line)
    return name


def _tasks(run: Fields, run_name: str) -> tuple[TaskSpec, ...]:
    names: dict[str, int] = {}
    tasks: list[TaskSpec] = []
    links: dict[str, tuple[Cursor, list[tuple[Cursor, DependSpec]]]] = {}
    for index, place in enumerate(run.items("tasks")):
        owner = f"run {shown(run_name)}: task at index {index}"
        if index == MAX_TASKS:
            place.wrong(f"a run has at most {MAX_TASKS} tasks")
            return ()
        if place.is_null:
            place.wrong(f"{owner} is empty")
            continue
        fields = place.fields(TASK, foreign=FOREIGN_TASK)
        name = _name(fields, owner, "task", names)
        depends = decode_depends(fields)
        links.setdefault(name, (place, depends))
        tasks.append(_task(fields, name, depends))
    _check_links(links, {task.name for task in tasks if task.ignore_failure})
    return tuple(tasks)


def _task(fields: Fields, name: str, depends: list[tuple[Cursor, DependSpec]]) -> TaskSpec:
    return TaskSpec(
        name=name,
        runtime=decode_runtime(fields, f"task {shown(name)}"),
        environment=decode_environment(fields),
        working_dir=fields.text("working_dir") or DEFAULT_WORKING_DIR,
        shell=fields.text("shell"),
        user=fields.text("user"),
        steps=decode_steps(fields),
        depends=tuple(depend for _, depend in depends),
        ignore_failure=fields.flag("ignore_failure"),
        approval=fields.flag("approval"),
        when=decode_when(fields),
        docker_registries_auth=decode_registries(fields),
        task_timeout_interval=decode_interval(fields, "task_timeout_interval"),
        no_output_timeout=decode_limit(fields, "no_output_timeout"),
        retry=decode_retry(fields),
    )


def _check_links(links: dict[str, tuple[Cursor, list[tuple[Cursor, DependSpec]]]], ignored: Collection[str]) -> None:
    """Dependencies on tasks that are not there, twice on the same, in a circle, or already implied."""
    for name, (_, depends) in links.items():
        seen: set[str] = set()
        for place, depend in depends:
            if depend.task not in links:
                hint = "" if place.problems.full else nearest(depend.task, links)
                place.wrong(f"run task {shown(depend.task)} needed by task {shown(name)} doesn't exist", hint)
            elif depend.task in seen:
                place.wrong(f"duplicate task dependency: task {shown(name)} names {shown(depend.task)} twice")
            seen.add(depend.task)
    parents = {name: [depend.task for _, depend in depends] for name, (_, depends) in links.items()}
    cycles = cycle_errors(parents)
    told: set[str] = set()
    for name, message in cycles.items():
        place = links[name][0]
        way = [] if name in told or place.problems.full else circle(parents, name)
        told.update(way)
        place.wrong(message, _break(way) if way else "")
    if not cycles:
        _check_common(links, parents)
        _warn_of_unreached(links, ignored)


def _break(way: list[str]) -> str:
    """The hint for tasks that wait for each other in this order."""
    names = [shown(name) for name in way[:_SHOWN_CIRCLE]] + (["…"] if len(way) > _SHOWN_CIRCLE else [])
    return f"{' needs '.join((*names, shown(way[0])))}: leave one of these dependencies out"


def _check_common(
    links: dict[str, tuple[Cursor, list[tuple[Cursor, DependSpec]]]], parents: dict[str, list[str]]
) -> None:
    for name, parent, dependency in common_dependencies(parents):
        place = links[name][0]
        if place.problems.full:
            return
        place.wrong(
            f"task {shown(name)} and its dependency {shown(parent)} have both a dependency on task {shown(dependency)}",
            f"leave {shown(dependency)} out of the task's depends",
        )


def _warn_of_unreached(
    links: dict[str, tuple[Cursor, list[tuple[Cursor, DependSpec]]]], ignored: Collection[str]
) -> None:
    """Warn of a reaction to a failure that does not see the failures before its parent: those skip the parent."""
    for name, (_, depends) in links.items():
        for place, depend in depends:
            if "on_failure" not in depend.conditions or not {"on_skipped", "always"}.isdisjoint(depend.conditions):
                continue
            before = [
                one.task
                for _, one in links.get(depend.task, (place, []))[1]
                if one.task not in ignored and {"on_failure", "always"}.isdisjoint(one.conditions)
            ]
            if before:
                place.warn(
                    f"a failure of task {shown(before[0])} does not reach task {shown(name)}: "
                    f"it skips task {shown(depend.task)}",
                    "add on_skipped, or use always",
                )
