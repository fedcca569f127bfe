"""What differs between two runs, or between two moments of a run, in the words of the API.

Tasks are compared by their names, since each run has ids of its own. Secrets are compared as they are shown: that a
secret has another value is not visible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from runstream import api
from runstream.gateway.responses import RunAnswer
from runstream.json_changes import Path, differences

_OF_TASKS = frozenset({"id", "name", "level", "depends", "environment"})
"""Fields of a task of a run config that are no configuration, or are compared in another form."""
_MISSING = object()
"""The value of a path that a document does not have."""


def run_difference(after: RunAnswer, before: RunAnswer, *, at: str = "", before_at: str = "") -> api.RunDiff:
    """Return what differs in a run from another one, or from the same one at a moment before."""
    documents = _document(before), _document(after)
    found: list[api.Difference] = []
    for area in _AREAS:
        one, other = (document[area] for document in documents)
        found += _of_area(area, one, other)
    names = dict.fromkeys((*_tasks(before), *_tasks(after)))
    tasks = [_timing(name, _tasks(after).get(name), _tasks(before).get(name)) for name in names]
    return api.RunDiff(_side(after, at), _side(before, before_at), tuple(found), tuple(tasks))


_AREAS = ("source", "configuration", "environment", "outcome")
"""In the order of the differences: what the others may follow from comes first."""
_SOURCE = ("RUNSTREAM_GIT_", "RUNSTREAM_PULL_REQUEST", "RUNSTREAM_REPOSITORY_URL")
"""Beginnings of the names of variables that say which commit a run is of."""


def _document(answer: RunAnswer) -> dict[str, Any]:
    run, config = answer.run, msgspec.to_builtins(answer.run_config)
    tasks = {task["name"]: task for task in config["tasks"].values()}
    names = {key: task["name"] for key, task in config["tasks"].items()}
    static = _once(config["static_environment"])
    source = {name: value for name, value in static.items() if name.startswith(_SOURCE)}
    return {
        "source": {"": {**run.annotations, **source}},
        "configuration": {
            "": {
                name: config[name]
                for name in (
                    "setup_errors",
                    "cache_group",
                    "run_timeout_interval",
                    "concurrency",
                    "priority",
                    "fail_fast",
                )
            },
            **{name: _task_config(task, names) for name, task in tasks.items()},
        },
        "environment": {
            "": {**{name: value for name, value in static.items() if name not in source}, **config["environment"]},
            **{name: task["environment"] for name, task in tasks.items()},
        },
        "outcome": {
            "": {"phase": run.phase.value, "result": run.result.value, "reason": run.reason, "timedout": run.timedout},
            **{name: _outcome(task) for name, task in _tasks(answer).items()},
        },
    }


def _once(static: Mapping[str, str]) -> dict[str, str]:
    """Return the static environment with one of the two names that each of its variables has."""
    twins = {f"AGOLA_{name.removeprefix('RUNSTREAM_')}" for name in static if name.startswith("RUNSTREAM_")}
    return {name: value for name, value in static.items() if name not in twins}


def _task_config(task: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    depends = {names[depend["task_id"]]: sorted(depend["conditions"]) for depend in task["depends"].values()}
    return {**{name: value for name, value in task.items() if name not in _OF_TASKS}, "depends": depends}


def _outcome(task: api.Task) -> dict[str, Any]:
    return {
        "status": task.status,
        "failure": task.failure,
        "fail_error": task.fail_error,
        "kept": task.kept,
        "attempt": task.attempt,
        "executor_id": task.executor_id,
        "approved": task.approved,
        "annotations": task.annotations,
        "setup_step": _step(task.setup_step),
        "steps": [_step(step) for step in task.steps],
    }


def _step(step: api.Step) -> dict[str, Any]:
    return {"phase": step.phase, "exit_status": step.exit_status, "timedout": step.timedout}


def _of_area(area: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[api.Difference]:
    """Yield the differences of an area, first those of the whole run; a task that one side lacks is one of them."""
    for task in dict.fromkeys((*before, *after)):
        if task not in before or task not in after:
            if area == "configuration":
                yield api.Difference(area, task, (), "removed" if task in before else "added", None, None)
            continue
        changes, removals = differences(before[task], after[task])
        for path, value in changes:
            old = _at(before[task], path)
            kind = "added" if old is _MISSING else "changed"
            yield api.Difference(area, task, path, kind, None if old is _MISSING else old, value)
        for path in sorted(removals, key=str):
            yield api.Difference(area, task, path, "removed", _at(before[task], path), None)


def _at(document: Any, path: Path) -> Any:
    for key in path:
        if isinstance(document, Mapping):
            document = document.get(key, _MISSING)
        else:
            document = document[key] if isinstance(key, int) and key < len(document) else _MISSING
        if document is _MISSING:
            break
    return document


def _tasks(answer: RunAnswer) -> dict[str, api.Task]:
    return {task.name: task for task in answer.run.tasks.values()}


def _timing(name: str, after: api.Task | None, before: api.Task | None) -> api.TaskTiming:
    return api.TaskTiming(
        name,
        _seconds(after),
        _seconds(before),
        tuple(_seconds(step) for step in after.steps) if after is not None else (),
        tuple(_seconds(step) for step in before.steps) if before is not None else (),
    )


def _seconds(timed: api.Task | api.Step | api.Run | None) -> float | None:
    begun: datetime | None = timed.start_time if timed is not None else None
    ended: datetime | None = timed.end_time if timed is not None else None
    return (ended - begun).total_seconds() if begun is not None and ended is not None else None


def _side(answer: RunAnswer, at: str) -> api.DiffSide:
    run = answer.run
    return api.DiffSide(
        run.id, run.name, run.group, run.counter, run.phase, run.result, run.enqueue_time, _seconds(run), at
    )
