"""The strongly connected components of a graph of tasks: what every question about cycles and order rests on.

Tarjan's algorithm without recursion, so that a long chain of tasks costs time in proportion to its length and
no stack. A component comes after all components that it depends on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

Parents = Mapping[str, Sequence[str]]
"""For each task the names of its parents; names that are no task are ignored."""


def components(parents: Parents) -> Iterator[list[str]]:
    """The components, parents first; within one, in the order of the mapping."""
    search = _Search(parents)
    order = {name: position for position, name in enumerate(parents)}
    for name in parents:
        if name not in search.index:
            for component in search.explore(name):
                yield sorted(component, key=order.__getitem__)


class _Search:
    """What a depth-first search remembers."""

    def __init__(self, parents: Parents) -> None:
        self._parents = parents
        self.index: dict[str, int] = {}
        self._low: dict[str, int] = {}
        self._open: list[str] = []
        self._is_open: set[str] = set()

    def explore(self, root: str) -> Iterator[list[str]]:
        """The components that can be reached from this task and were not before."""
        path = [(root, self._enter(root))]
        while path:
            name, remaining = path[-1]
            parent = next(remaining, None)
            if parent is not None:
                self._visit(name, parent, path)
                continue
            path.pop()
            if path:
                below = path[-1][0]
                self._low[below] = min(self._low[below], self._low[name])
            if self._low[name] == self.index[name]:
                yield self._close(name)

    def _enter(self, name: str) -> Iterator[str]:
        self.index[name] = self._low[name] = len(self.index)
        self._open.append(name)
        self._is_open.add(name)
        return (parent for parent in self._parents[name] if parent in self._parents)

    def _visit(self, name: str, parent: str, path: list[tuple[str, Iterator[str]]]) -> None:
        if parent not in self.index:
            path.append((parent, self._enter(parent)))
        elif parent in self._is_open:
            self._low[name] = min(self._low[name], self.index[parent])

    def _close(self, name: str) -> list[str]:
        component: list[str] = []
        while not component or component[-1] != name:
            component.append(self._open.pop())
            self._is_open.discard(component[-1])
        return component
