"""The graph's answers are those of a slow and obvious way to find them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.errors import BadRequestError
from runstream.events.run_config import Depend, RunConfigTask, Runtime
from runstream.limits import MAX_TASKS
from runstream.runconfig.graph import (
    ancestors,
    ancestors_of,
    check_graph,
    common_dependencies,
    cycle_errors,
    levels,
    shortest_cycle,
    with_levels,
)

Graph = dict[str, list[str]]
NAMES = [f"t{i}" for i in range(8)]
graphs = st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=4), max_size=8)
ordered = st.builds(
    lambda picks: {name: sorted({NAMES[p % i] for p in picks[i]} if i else set()) for i, name in enumerate(NAMES)},
    st.lists(st.lists(st.integers(0, 100), max_size=3), min_size=len(NAMES), max_size=len(NAMES)),
)


def reached(graph: Graph, name: str) -> set[str]:
    found: set[str] = set()
    waiting = [parent for parent in graph[name] if parent in graph]
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting += [grandparent for grandparent in graph[parent] if grandparent in graph]
    return found


def longest(graph: Graph, name: str) -> int:
    return max((longest(graph, parent) + 1 for parent in graph[name] if parent in graph), default=0)


@given(graphs)
def test_ancestors(graph: Graph) -> None:
    assert ancestors(graph) == {name: frozenset(reached(graph, name)) for name in graph}


@given(graphs)
def test_levels_or_a_cycle(graph: Graph) -> None:
    if any(name in reached(graph, name) for name in graph):
        with pytest.raises(BadRequestError, match="circular dependency detected"):
            levels(graph)
    else:
        assert levels(graph) == {name: longest(graph, name) for name in graph}


@given(ordered)
def test_levels_of_a_graph_without_cycles(graph: Graph) -> None:
    assert levels(graph) == {name: longest(graph, name) for name in graph}


@given(graphs)
def test_cycles(graph: Graph) -> None:
    found = cycle_errors(graph)
    assert set(found) == {name for name in graph if name in reached(graph, name)}
    for name, message in found.items():
        children = {other for other in reached(graph, name) if name in graph[other]}
        assert message.startswith(f'circular dependency between task "{name}" and tasks ')
        assert set(message.split(" and tasks ")[1].replace('"', "").split()) == children


@given(graphs)
def test_a_reported_cycle_is_a_shortest_one(graph: Graph) -> None:
    for name in graph:
        way = shortest_cycle(graph, name)
        assert bool(way) == (name in reached(graph, name))
        assert len(set(way)) == len(way)
        assert all(after in graph[before] for before, after in zip(way, [*way[1:], name], strict=False))
        assert not way or way[0] == name
        assert not way or len(way) == distance(graph, name)


def distance(graph: Graph, name: str) -> int:
    steps, found = 1, set(graph[name])
    while name not in found:
        steps, found = steps + 1, {above for other in found & graph.keys() for above in graph[other]}
    return steps


@given(ordered)
def test_common_dependencies(graph: Graph) -> None:
    expected = {
        (task, parent, other)
        for task, parents in graph.items()
        for parent in parents
        for other in parents
        if other != parent and other in reached(graph, parent)
    }
    assert set(common_dependencies(graph)) == expected


def tasks(graph: Graph) -> dict[str, RunConfigTask]:
    return {name: task(name, parents) for name, parents in graph.items()}


def task(name: str, parents: list[str]) -> RunConfigTask:
    depends = tuple(Depend(parent, ("on_success",)) for parent in parents)
    return RunConfigTask(
        name=name,
        level=-1,
        depends=depends,
        runtime=Runtime("host", "", ()),
        environment={},
        working_dir="",
        shell="",
        user="",
        steps=(),
        ignore_failure=False,
        skip=False,
        needs_approval=False,
        docker_registries_auth={},
        task_timeout_interval=0,
    )


@given(graphs)
def test_ancestors_of_one(graph: Graph) -> None:
    for name in graph:
        assert ancestors_of(tasks(graph), name) == reached(graph, name)


@pytest.mark.parametrize(
    ("graph", "errors"),
    [
        ({}, []),
        ({"a": [], "b": ["a"], "c": ["b"]}, []),
        ({"a": ["z"]}, ['run task "z" needed by task "a" doesn\'t exist']),
        ({"a": [], "b": ["a", "a"]}, ['duplicate task dependency: task "b"']),
        ({"a": ["a"]}, ['circular dependency between task "a" and tasks "a"']),
        (
            {"a": [], "b": ["a"], "c": ["a", "b"]},
            ['task "c" and its parent "b" have both a dependency on task "a"'],
        ),
    ],
)
def test_what_a_client_sends_is_checked(graph: Graph, errors: list[str]) -> None:
    assert check_graph(tasks(graph)) == errors


def test_a_task_is_kept_under_its_name() -> None:
    assert check_graph({"a": task("b", [])}) == ['task "b" is kept under the name "a"']


def test_levels_are_set() -> None:
    found = with_levels(tasks({"c": ["b"], "a": [], "b": ["a"]}))
    assert {name: found[name].level for name in found} == {"c": 2, "a": 0, "b": 1}


def test_big_graphs_take_neither_stack_nor_minutes() -> None:
    count = MAX_TASKS
    chain = {f"t{i}": [f"t{i - 1}"] if i else [] for i in range(count)}
    assert check_graph(tasks(chain)) == []
    assert levels(chain)[f"t{count - 1}"] == count - 1
    assert len(check_graph(tasks({f"t{i}": [f"t{(i + 1) % count}"] for i in range(count)}))) == 100
    assert len(check_graph(tasks({f"t{i}": [f"t{j}" for j in range(i)] for i in range(300)}))) == 100
    assert check_graph(tasks(chain | {"more": []})) == ["a run has at most 2000 tasks, this one has 2001"]
