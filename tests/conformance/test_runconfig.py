"""runconfig_test.json: the graph of tasks, and what is generated from a configuration.

Tasks are known by name here, not by an id: an expected id is looked up by the name that it stands for. A `tty`
that was not given is true. Levels are part of what we generate, and are compared by the cases for levels.
"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import to_builtins

from runstream.errors import BadRequestError
from runstream.events.run_config import Depend, Resources, RunConfigTask, Runtime, SaveContent, Volume
from runstream.runconfig.amounts import parse_duration, parse_quantity
from runstream.runconfig.graph import ancestors, check_graph, levels
from runstream.runconfig.parse import QUEUE, ParsedConfig, RunSpec
from runstream.runconfig.refs import RefContext
from runstream.runconfig.resolve import run_configs
from runstream.runconfig.steps import (
    CloneStep,
    RestoreCacheStep,
    RestoreWorkspaceStep,
    RunStep,
    SaveCacheStep,
    SaveToWorkspaceStep,
    StepSpec,
)
from runstream.runconfig.tasks import ContainerSpec, DependSpec, RuntimeSpec, TaskSpec
from runstream.runconfig.values import RegistryAuthSpec, Value

from .cases import cases
from .test_config import compact
from .test_when import when_of

Json = dict[str, Any]


def parents(case: Json, prefix: str = "") -> dict[str, list[str]]:
    return {prefix + task["id"]: [prefix + parent for parent in task.get("depends") or {}] for task in case["tasks"]}


@cases("runconfig_test.json", "gen_tasks_levels")
def test_levels(case: Json) -> None:
    if case["expect"]["error"] is not None:
        with pytest.raises(BadRequestError, match="circular dependency detected"):
            levels(parents(case))
        return
    assert levels(parents(case)) == {task["id"]: task.get("level", 0) for task in case["expect"]["tasks"]}


@cases("runconfig_test.json", "get_all_parents")
def test_ancestors(case: Json) -> None:
    assert ancestors(parents(case)) == {name: frozenset(found) for name, found in case["expect"]["parents"].items()}


@cases("runconfig_test.json", "check_run_config_tasks")
def test_check(case: Json) -> None:
    tasks = {
        name: RunConfigTask(
            name=name,
            level=-1,
            depends=tuple(Depend(parent, ("on_success",)) for parent in found),
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
        for name, found in parents(case, "task").items()
    }
    error = case["expect"]["error"] or {}
    one = [error["message"]] if "message" in error else []
    assert sorted(check_graph(tasks)) == sorted(error.get("unordered_messages", one))


@cases("runconfig_test.json", "gen_run_config_tasks")
def test_generate(case: Json) -> None:
    context = RefContext(ref_type=case["ref_type"], branch=case["branch"], tag=case["tag"], ref=case["ref"])
    found = run_configs(parsed_of(case["config"]), context, case["variables"])
    config = next(run.config for run in found if run.name == case["run_name"])
    names = {task["id"]: task["name"] for task in case["expect"]["tasks"].values()}
    ours = {name: compact(to_builtins(task) | {"level": 0}) for name, task in config.tasks.items()}
    theirs = {task["name"]: compact(expected(task, names)) for task in case["expect"]["tasks"].values()}
    assert ours == theirs


def expected(task: Json, names: dict[str, str]) -> Json:
    depends = [{"task": names[d["task_id"]], "conditions": d["conditions"]} for d in task.get("depends", {}).values()]
    steps = [step | {"tty": step.get("tty", True)} for step in task.get("steps") or []]
    runtime = dict(task["runtime"])
    runtime["containers"] = [
        container | {"volumes": [{"path": v["path"], "tmpfs_size": v["tmpfs"]["size"]} for v in container["volumes"]]}
        for container in runtime["containers"]
    ]
    renamed = {key: value for key, value in task.items() if key != "id"}
    return renamed | {"depends": depends, "steps": steps, "runtime": runtime}


def parsed_of(config: Json) -> ParsedConfig:
    return ParsedConfig(tuple(run_of(run) for run in config["runs"]), registries_of(config), timeout_of(config))


def run_of(run: Json) -> RunSpec:
    tasks = tuple(task_of(task) for task in run["tasks"])
    return RunSpec(
        name=run["name"],
        tasks=tasks,
        when=when_of(run["when"]),
        docker_registries_auth=registries_of(run),
        task_timeout_interval=timeout_of(run),
        run_timeout_interval=None,
        no_output_timeout=None,
        retry=None,
        concurrency=QUEUE,
        priority=0,
    )


def task_of(task: Json) -> TaskSpec:
    return TaskSpec(
        name=task["name"],
        runtime=RuntimeSpec(
            task["runtime"]["type"],
            task["runtime"].get("arch", ""),
            tuple(container_of(container) for container in task["runtime"]["containers"]),
            {},
        ),
        environment=environment_of(task),
        working_dir=task["working_dir"],
        shell=task["shell"],
        user=task["user"],
        steps=tuple(step_of(step) for step in task["steps"] or ()),
        depends=tuple(DependSpec(d["task"], tuple(d["conditions"] or ())) for d in task["depends"] or ()),
        ignore_failure=task["ignore_failure"],
        approval=task["approval"],
        when=when_of(task["when"]),
        docker_registries_auth=registries_of(task),
        task_timeout_interval=timeout_of(task),
        no_output_timeout=None,
        retry=None,
    )


def container_of(container: Json) -> ContainerSpec:
    return ContainerSpec(
        image=container["image"],
        environment=environment_of(container),
        user=container["user"],
        privileged=container["privileged"],
        entrypoint=container["entrypoint"],
        volumes=tuple(
            Volume(volume["path"], parse_quantity(volume["tmpfs"]["size"] or "0"))
            for volume in container["volumes"] or ()
        ),
        resources=Resources(),
    )


def step_of(step: Json) -> StepSpec:
    name, when = step.get("name", ""), when_of(step.get("when"))
    contents = tuple(SaveContent(c["source_dir"], c["dest_dir"], tuple(c["paths"])) for c in step.get("contents") or ())
    match step["type"]:
        case "run":
            return RunStep(
                name=name,
                when=when,
                command=step["command"],
                environment=environment_of(step),
                working_dir=step["working_dir"],
                shell=step["shell"],
                tty=step["tty"] is not False,
            )
        case "clone":
            depth, submodules = step.get("depth"), bool(step.get("recurse_submodules"))
            return CloneStep(name=name, when=when, depth=depth, recurse_submodules=submodules)
        case "save_to_workspace":
            return SaveToWorkspaceStep(name=name, when=when, contents=contents)
        case "save_cache":
            return SaveCacheStep(name=name, when=when, key=step["key"], contents=contents)
        case "restore_cache":
            return RestoreCacheStep(name=name, when=when, keys=tuple(step["keys"]), dest_dir=step["dest_dir"])
        case _:
            return RestoreWorkspaceStep(name=name, when=when, dest_dir=step["dest_dir"])


def environment_of(owner: Json) -> dict[str, Value]:
    return {name: value_of(value) for name, value in (owner.get("environment") or {}).items()}


def value_of(value: Json) -> Value:
    return Value(value["value"], value["type"])


def registries_of(owner: Json) -> dict[str, RegistryAuthSpec]:
    return {
        registry: RegistryAuthSpec(
            auth["type"], value_of(auth["username"]), value_of(auth["password"]), value_of(auth["auth"])
        )
        for registry, auth in (owner["docker_registries_auth"] or {}).items()
    }


def timeout_of(owner: Json) -> int | None:
    given = owner["task_timeout_interval"]
    return None if given is None else parse_duration(given)
