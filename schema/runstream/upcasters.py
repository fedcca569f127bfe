"""How an event of an earlier schema version becomes today's: pure steps from dict to dicts, one version a step.

An upcaster takes the event as it was written (with its `type` and `version`) and returns the events that say the
same one step later: usually one, of the next version; none when it no longer means anything; several when it was
split. A released version stays here for ever, so that the log stays readable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, cast

EventData: TypeAlias = dict[str, object]
Upcaster: TypeAlias = Callable[[EventData], list[EventData]]
Upcasters: TypeAlias = Mapping[tuple[str, int], Upcaster]


def _with(**added: object) -> Upcaster:
    """The next version only has more fields: what these say was always so."""

    def step(event: EventData) -> list[EventData]:
        return [{**event, **added, "version": _version(event) + 1}]

    return step


def _version(event: EventData) -> int:
    return cast("int", event["version"])


def _run_config_2(event: EventData) -> list[EventData]:
    """Runs have time-outs, a policy and a priority; tasks may be retried; steps have time-outs."""
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
    ("ExecutorTaskAssigned", 1): _with(attempt=1, workspaces={}),
    ("ExecutorTaskArchiveStored", 1): _with(warnings=[]),
}
"""By the type and version that they read."""


def upcast(event: EventData, upcasters: Upcasters = UPCASTERS) -> Iterator[EventData]:
    """The event as the newest steps say it, in order; as it is when no step reads it."""
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
