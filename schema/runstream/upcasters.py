"""Upcasts events of earlier schema versions to the current ones: pure steps from dict to dicts, one version at a time.

An upcaster takes the event as it was written (with its `type` and `version`) and returns the equivalent events one step
later: usually one, of the next version; none if it has lost its meaning; several if it was split. Released versions
stay here for ever, so that the log stays readable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, cast

EventData: TypeAlias = dict[str, object]
Upcaster: TypeAlias = Callable[[EventData], list[EventData]]
Upcasters: TypeAlias = Mapping[tuple[str, int], Upcaster]


def _with(**added: object) -> Upcaster:
    """Return an upcaster to a version that only adds fields, with values that were always implied."""

    def step(event: EventData) -> list[EventData]:
        return [{**event, **added, "version": cast("int", event["version"]) + 1}]

    return step


def _run_config_2(event: EventData) -> list[EventData]:
    """Add timeouts, a concurrency policy and a priority to runs, retries to tasks, and timeouts to steps."""
    content = cast("dict[str, dict[str, EventData]]", event["content"])
    tasks = {name: {**task, "retry": None} for name, task in content["tasks"].items()}
    added = {
        "tasks": tasks,
        "run_timeout_interval": 0,
        "concurrency": {"policy": "queue", "max_waiting": 0},
        "priority": 0,
    }
    return [{**event, "version": 2, "content": {**content, **added}}]


UPCASTERS: dict[tuple[str, int], Upcaster] = {
    ("RunConfigStored", 1): _run_config_2,
    ("RunCreated", 1): _with(request=""),
    ("RunCancelled", 1): _with(reason=""),
    ("RunStopRequested", 1): _with(reason=""),
    ("ExecutorRegistered", 1): _with(sandbox=""),
    ("ExecutorLost", 1): _with(last_seen=None),
    ("ExecutorLost", 2): _with(released=False),
    ("ExecutorTaskAssigned", 1): _with(attempt=1, workspaces={}),
    ("ExecutorTaskArchiveStored", 1): _with(warnings=[]),
}
"""The upcasters, by the type and version that they read."""


def upcast(event: EventData, upcasters: Upcasters = UPCASTERS) -> Iterator[EventData]:
    """Return the event after all upcasters, in order; unchanged if there is none for it."""
    step = _step(event, upcasters)
    if step is None:
        yield event
        return
    for later in step(event):
        yield from upcast(later, upcasters)


def _step(event: EventData, upcasters: Upcasters) -> Upcaster | None:
    match event:
        case {"type": str(kind), "version": int(version)}:
            return upcasters.get((kind, version))
        case _:
            return None
