"""Whether two run configs do the same work, whatever the values of their variables and secrets are.

Values come from variables in environments and in what logs in at registries, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from runstream.events.run_config import RunConfigTask, Text

Tasks = Mapping[str, RunConfigTask]


def differing_tasks(one: Tasks, other: Tasks) -> list[str]:
    """The names of the tasks that are only in one of these, or do other work in the other; in order."""
    return [name for name in {**one, **other} if _work(one.get(name)) != _work(other.get(name))]


def _work(task: RunConfigTask | None) -> RunConfigTask | None:
    if task is None:
        return None
    runtime = task.runtime
    containers = tuple(replace(one, environment=_names(one.environment)) for one in runtime.containers)
    logins = task.docker_registries_auth.items()
    return replace(
        task,
        environment=_names(task.environment),
        runtime=replace(runtime, containers=containers),
        steps=tuple(replace(step, environment=_names(step.environment or {})) for step in task.steps),
        docker_registries_auth={name: replace(one, username="", password="", auth="") for name, one in logins},
    )


def _names(environment: Mapping[str, Text]) -> dict[str, Text]:
    return dict.fromkeys(environment, "")
