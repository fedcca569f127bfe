"""The same work with other values is the same; anything else is another task."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from runstream.events.run_config import Container, RegistryAuth, RunConfigTask, Runtime, Sealed, Step
from runstream.runconfig.parse import parse_config
from runstream.runconfig.refs import RefContext
from runstream.runconfig.resolve import differing_tasks, run_configs
from tests.domain.world import task

CONFIG = """
docker_registries_auth:
  registry.example.com: {username: {from_variable: user}, password: {from_variable: password}}
runs:
  - name: main
    tasks:
      - name: build
        runtime: {type: pod, containers: [{image: alpine, environment: {A: {from_variable: a}}}]}
        environment: {B: {from_variable: b}, C: fixed}
        steps: [{run: {command: make, environment: {D: {from_variable: d}}}}]
"""


def _tasks(**variables: Any) -> dict[str, RunConfigTask]:
    (run,) = run_configs(parse_config(CONFIG, "yaml", "config.yml"), RefContext(), variables)
    return run.config.tasks


def test_other_values_of_all_variables_are_the_same_work() -> None:
    names = ("user", "password", "a", "b", "d")
    one = _tasks(**dict.fromkeys(names, "one"))
    assert one != _tasks()
    assert differing_tasks(one, _tasks()) == []
    assert differing_tasks(one, _tasks(**dict.fromkeys(names, Sealed("k", "v")))) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": (Step(type="run", command="other"),)},
        {"steps": (Step(type="run", command="true", environment={"A": "1"}),)},
        {"environment": {"NEW": "1"}},
        {"runtime": Runtime("pod", "", (Container("image", {}, "", False, "", ()),))},
        {"docker_registries_auth": {"r": RegistryAuth("basic", "u", "p", "")}},
        {"skip": True},
        {"needs_approval": True},
        {"task_timeout_interval": 5},
    ],
)
def test_what_else_differs(changes: dict[str, Any]) -> None:
    one = {"a": task("a"), "b": task("b")}
    assert differing_tasks(one, {**one, "b": replace(one["b"], **changes)}) == ["b"]


def test_tasks_that_are_only_in_one() -> None:
    one = {"a": task("a"), "b": task("b")}
    assert differing_tasks(one, {"b": one["b"], "c": task("c")}) == ["a", "c"]
    assert differing_tasks(one, dict(reversed(one.items()))) == []
