"""Changes between two JSON documents: the paths whose values differ, and the paths that are gone.

A path is a list of keys and indexes. Objects are compared key by key. Arrays are compared element by element where none
is removed; otherwise the whole array is a change, and so is an element that loses a key. So an index is at most the
length of its array, and no removal is in an array.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
Change: TypeAlias = tuple[Path, Any]
"""A path, and the value that it has after the change."""


def differences(before: Any, after: Any, at: Path = ()) -> tuple[list[Change], list[Path]]:
    """Return the changes and the removed paths that make `after` of `before`; both lie at the path `at`."""
    changes: list[Change] = []
    removals: list[Path] = []
    _compare(before, after, at, changes, removals)
    return changes, removals


def _compare(before: Any, after: Any, at: Path, changes: list[Change], removals: list[Path]) -> None:
    if isinstance(before, dict) and isinstance(after, dict):
        removals.extend((*at, key) for key in before.keys() - after.keys())
        for key, value in after.items():
            if key in before:
                _compare(before[key], value, (*at, key), changes, removals)
            else:
                changes.append(((*at, key), value))
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple) and len(before) <= len(after):
        for index, value in enumerate(after):
            if index >= len(before):
                changes.append(((*at, index), value))
                continue
            inside: tuple[list[Change], list[Path]] = [], []
            _compare(before[index], value, (*at, index), *inside)
            # An element that loses a key is a change as a whole: a path of removal has keys alone.
            changes.extend([((*at, index), value)] if inside[1] else inside[0])
    elif type(before) is not type(after) or before != after:
        changes.append((at, after))


def with_changes(document: Any, changes: Iterable[Change], removals: Iterable[Path] = ()) -> Any:
    """Return the document with these changes and without these paths; the given one stays as it is."""
    for path, value in changes:
        document = _with(document, path, value)
    for path in removals:
        document = _without(document, path)
    return document


def _with(document: Any, path: Sequence[str | int], value: Any) -> Any:
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(document, Mapping):
        return {**document, key: _with(document.get(key), rest, value)}
    if not isinstance(document, list | tuple) or not isinstance(key, int) or not 0 <= key <= len(document):
        raise ValueError(f"no value at {key!r} can be changed")
    return [*document[:key], _with(document[key] if key < len(document) else None, rest, value), *document[key + 1 :]]


def _without(document: Any, path: Sequence[str | int]) -> Any:
    if not isinstance(document, Mapping) or not path:
        raise ValueError(f"no value at {list(path)!r} can be removed")
    key, rest = path[0], path[1:]
    if rest:
        return {**document, key: _without(document[key], rest)}
    return {name: value for name, value in document.items() if name != key}
