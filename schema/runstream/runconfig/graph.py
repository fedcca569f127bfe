"""The graph of a run's tasks: levels, ancestors, cycles, repeated dependencies (rules config-13 and schedule-8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from runstream.errors import BadRequestError
from runstream.events.run_config import RunConfigTask
from runstream.limits import MAX_TASKS
from runstream.runconfig.components import Parents, components
from runstream.runconfig.problems import MAX_PROBLEMS


def levels(parents: Parents) -> dict[str, int]:
    """For each task 0 when it has no parents, else one more than its highest parent.

    Raises BadRequestError (code circularDependency) when there is a cycle.
    """
    found: dict[str, int] = {}
    for component in components(parents):
        name = component[0]
        if _is_cycle(component, parents):
            raise BadRequestError("circular dependency detected", code="circularDependency")
        found[name] = max((found[parent] + 1 for parent in parents[name] if parent in found), default=0)
    return {name: found[name] for name in parents}


def ancestors(parents: Parents) -> dict[str, frozenset[str]]:
    """For each task everything that it depends on, directly or not; itself too when it is in a cycle."""
    names = list(parents)
    masks = _ancestor_masks(parents)
    return {name: frozenset(_named(masks[name], names)) for name in names}


def ancestors_of(tasks: Mapping[str, RunConfigTask], name: str) -> set[str]:
    """The names of everything that one task depends on, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for depend in tasks[waiting.pop()].depends:
            if depend.task in tasks and depend.task not in found:
                found.add(depend.task)
                waiting.append(depend.task)
    return found


def cycle_errors(parents: Parents) -> dict[str, str]:
    """For each task in a cycle one sentence that names its ancestors that depend on it."""
    errors: dict[str, str] = {}
    for component in components(parents):
        if not _is_cycle(component, parents):
            continue
        children: dict[str, list[str]] = {name: [] for name in component}
        for name in component:
            for parent in dict.fromkeys(parents[name]):
                if parent in children:
                    children[parent].append(name)
        for name, found in children.items():
            quoted = " ".join(f'"{child}"' for child in found[:10])
            errors[name] = f'circular dependency between task "{name}" and tasks {quoted}'
    return {name: errors[name] for name in parents if name in errors}


def circle(parents: Parents, name: str) -> list[str]:
    """Return a shortest way from a task through its parents back to itself, without its end; empty for none."""
    after: dict[str, str] = {}
    waiting = deque([name])
    while waiting:
        at = waiting.popleft()
        for parent in parents[at]:
            if parent == name:
                way = [at]
                while way[-1] != name:
                    way.append(after[way[-1]])
                return way[::-1]
            if parent in parents and parent not in after:
                after[parent] = at
                waiting.append(parent)
    return []


def common_dependencies(parents: Parents) -> Iterator[tuple[str, str, str]]:
    """(task, parent, dependency) where the task depends on both, and the parent on that dependency as well."""
    names = list(parents)
    bits = _bits(parents)
    masks = _ancestor_masks(parents)
    for name in names:
        direct = sum(bits[parent] for parent in dict.fromkeys(parents[name]) if parent in bits)
        for parent in dict.fromkeys(parents[name]):
            if parent in bits and parent != name:
                for dependency in _named(masks[parent] & direct & ~bits[parent], names):
                    yield name, parent, dependency


def check_graph(tasks: Mapping[str, RunConfigTask]) -> list[str]:
    """What is wrong with the graph of these tasks (by name), one sentence each, at most 100; empty when nothing is."""
    if len(tasks) > MAX_TASKS:
        return [f"a run has at most {MAX_TASKS} tasks, this one has {len(tasks)}"]
    errors = [
        f'task "{task.name}" is kept under the name "{name}"' for name, task in tasks.items() if name != task.name
    ]
    for name, task in tasks.items():
        listed = [depend.task for depend in task.depends]
        errors += [
            f'run task "{parent}" needed by task "{name}" doesn\'t exist' for parent in listed if parent not in tasks
        ]
        if len(set(listed)) < len(listed):
            errors.append(f'duplicate task dependency: task "{name}"')
    parents = parents_of(tasks)
    errors = errors or list(cycle_errors(parents).values())
    if errors:
        return errors[:MAX_PROBLEMS]
    found = common_dependencies(parents)
    sentences = (f'task "{t}" and its parent "{p}" have both a dependency on task "{d}"' for t, p, d in found)
    return [sentence for sentence, _ in zip(sentences, range(MAX_PROBLEMS), strict=False)]


def with_levels(tasks: Mapping[str, RunConfigTask]) -> dict[str, RunConfigTask]:
    """The same tasks with their levels computed. Raises BadRequestError when there is a cycle."""
    found = levels(parents_of(tasks))
    return {name: replace(task, level=found[name]) for name, task in tasks.items()}


def parents_of(tasks: Mapping[str, RunConfigTask]) -> dict[str, tuple[str, ...]]:
    """The names of each task's parents."""
    return {name: tuple(depend.task for depend in task.depends) for name, task in tasks.items()}


def _is_cycle(component: list[str], parents: Parents) -> bool:
    return len(component) > 1 or component[0] in parents[component[0]]


def _bits(parents: Parents) -> dict[str, int]:
    return {name: 1 << position for position, name in enumerate(parents)}


def _ancestor_masks(parents: Parents) -> dict[str, int]:
    """Ancestors as bits in the order of the mapping: a chain of thousands would not fit in memory as sets."""
    bits = _bits(parents)
    masks: dict[str, int] = {}
    for component in components(parents):
        mask = 0
        for name in component:
            for parent in parents[name]:
                mask |= bits.get(parent, 0) | masks.get(parent, 0)
        masks.update(dict.fromkeys(component, mask))
    return masks


def _named(mask: int, names: list[str]) -> Iterator[str]:
    while mask:
        lowest = mask & -mask
        yield names[lowest.bit_length() - 1]
        mask ^= lowest
