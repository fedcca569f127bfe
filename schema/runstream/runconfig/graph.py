"""The graph of a run's tasks: levels, ancestors, cycles, redundant dependencies (rules config-13 and schedule-8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from runstream.errors import BadRequestError
from runstream.events.run_config import RunConfigTask
from runstream.limits import MAX_TASKS
from runstream.runconfig.problems import MAX_PROBLEMS

Parents = Mapping[str, Sequence[str]]
"""The names of each task's parents; names of no task are ignored."""


def levels(parents: Parents) -> dict[str, int]:
    """Return the level of each task: 0 without parents, else one more than its highest parent's.

    Raise BadRequestError (code circularDependency) for a cycle.
    """
    found: dict[str, int] = {}
    for component in _components(parents):
        name = component[0]
        if _is_cycle(component, parents):
            raise BadRequestError("circular dependency detected", code="circularDependency")
        found[name] = max((found[parent] + 1 for parent in parents[name] if parent in found), default=0)
    return {name: found[name] for name in parents}


def ancestors(parents: Parents) -> dict[str, frozenset[str]]:
    """Return the ancestors of each task; a task in a cycle is its own ancestor."""
    names = list(parents)
    masks = _ancestor_masks(parents)
    return {name: frozenset(_named(masks[name], names)) for name in names}


def ancestors_of(tasks: Mapping[str, RunConfigTask], name: str) -> set[str]:
    """Return the ancestors of one task."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for depend in tasks[waiting.pop()].depends:
            if depend.task in tasks and depend.task not in found:
                found.add(depend.task)
                waiting.append(depend.task)
    return found


def cycle_errors(parents: Parents) -> dict[str, str]:
    """Return a sentence for each task in a cycle, which names its children in the cycle."""
    errors: dict[str, str] = {}
    for component in _components(parents):
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


def shortest_cycle(parents: Parents, name: str) -> list[str]:
    """Return the shortest path from a task through its parents back to it, without its end; empty without a cycle."""
    after: dict[str, str] = {}
    queue = deque([name])
    while queue:
        at = queue.popleft()
        for parent in parents[at]:
            if parent == name:
                path = [at]
                while path[-1] != name:
                    path.append(after[path[-1]])
                return path[::-1]
            if parent in parents and parent not in after:
                after[parent] = at
                queue.append(parent)
    return []


def common_dependencies(parents: Parents) -> Iterator[tuple[str, str, str]]:
    """Yield (task, parent, dependency) where the task depends on both, and the parent on the dependency too."""
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
    """Return a sentence for each problem of a graph of tasks (by name), at most 100."""
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
    parents = _parents_of(tasks)
    errors = errors or list(cycle_errors(parents).values())
    if errors:
        return errors[:MAX_PROBLEMS]
    found = common_dependencies(parents)
    sentences = (f'task "{t}" and its parent "{p}" have both a dependency on task "{d}"' for t, p, d in found)
    return [sentence for sentence, _ in zip(sentences, range(MAX_PROBLEMS), strict=False)]


def with_levels(tasks: Mapping[str, RunConfigTask]) -> dict[str, RunConfigTask]:
    """Return the tasks with their levels. Raise BadRequestError for a cycle."""
    found = levels(_parents_of(tasks))
    return {name: replace(task, level=found[name]) for name, task in tasks.items()}


def _parents_of(tasks: Mapping[str, RunConfigTask]) -> dict[str, tuple[str, ...]]:
    """Return the names of each task's parents."""
    return {name: tuple(depend.task for depend in task.depends) for name, task in tasks.items()}


def _is_cycle(component: list[str], parents: Parents) -> bool:
    return len(component) > 1 or component[0] in parents[component[0]]


def _bits(parents: Parents) -> dict[str, int]:
    return {name: 1 << position for position, name in enumerate(parents)}


def _ancestor_masks(parents: Parents) -> dict[str, int]:
    """Return ancestors as bits, in the order of the mapping: sets of a chain of thousands would not fit in memory."""
    bits = _bits(parents)
    masks: dict[str, int] = {}
    for component in _components(parents):
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


def _components(parents: Parents) -> Iterator[list[str]]:
    """Yield the strongly connected components, parents first, each in the order of the mapping."""
    above = {name: [parent for parent in of if parent in parents] for name, of in parents.items()}
    below: dict[str, list[str]] = {name: [] for name in parents}
    for name, of in above.items():
        for parent in of:
            below[parent].append(name)
    entered: set[str] = set()
    left = [name for root in parents for name in _descent(root, below, entered)]
    order = {name: position for position, name in enumerate(parents)}
    found: set[str] = set()
    for root in reversed(left):  # Kosaraju: what a root still reaches upwards, it also reaches downwards
        if root not in found:
            yield sorted(_descent(root, above, found), key=order.__getitem__)


def _descent(root: str, edges: Mapping[str, Sequence[str]], entered: set[str]) -> Iterator[str]:
    """Enter what a task reaches and nothing entered before; yield each name when it is left, the root last.

    Not recursive: a chain of thousands of tasks would exhaust the stack.
    """
    if root in entered:
        return
    entered.add(root)
    path = [(root, iter(edges[root]))]
    while path:
        further = next((one for one in path[-1][1] if one not in entered), None)
        if further is None:
            yield path.pop()[0]
        else:
            entered.add(further)
            path.append((further, iter(edges[further])))
