"""config_test.json: what is accepted, what is refused, and what an accepted configuration means.

No case is answered differently. Errors that the cases name in one text are found among ours; all of ours come at once.
"""

from __future__ import annotations

from typing import Any

import pytest

from runstream.evaluation.files import ConfigName, parse_file
from runstream.evaluation.program import EvaluationError
from runstream.runconfig.amounts import parse_quantity
from runstream.runconfig.parse import ParsedConfig, RunSpec
from runstream.runconfig.problems import ConfigError
from runstream.runconfig.refs import RefContext
from runstream.runconfig.steps import CloneStep, RestoreCacheStep, RunStep, SaveCacheStep, SaveToWorkspaceStep, StepSpec
from runstream.runconfig.tasks import ContainerSpec, TaskSpec
from runstream.runconfig.values import RegistryAuthSpec, Value
from runstream.runconfig.when import Conditions, When

from .cases import cases

Json = dict[str, Any]
NAMES: dict[str, ConfigName] = {
    "starlark": "config.star",
    "jsonnet": "config.jsonnet",
    "json": "config.json",
    "yaml": "config.yml",
}


@cases("config_test.json")
def test_config(case: Json) -> None:
    error = case["expect"]["error"]
    if error is not None:
        with pytest.raises((ConfigError, EvaluationError)) as refused:
            read(case)
        for message in error.get("unordered_messages") or [error["message"]]:
            assert message.rpartition(", ")[2] in str(refused.value)
        return
    parsed = read(case)
    if case["expect"].get("config") is not None:
        assert compact(rendered(parsed)) == compact(sized(case["expect"]["config"]))


def read(case: Json) -> ParsedConfig:
    return parse_file(NAMES[case["format"]], case["config"], RefContext(**case["context"]))


def compact(value: Any) -> Any:
    """Without what is null, empty or zero: the cases take them for the same as absent. `tty: true` is a default."""
    if isinstance(value, dict):
        kept = {key: compact(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, "", 0, False, [], {})}
    return [compact(item) for item in value] if isinstance(value, (list, tuple)) else value


def sized(value: Any) -> Any:
    """Quantities by their number of bytes."""
    if isinstance(value, dict):
        size = {"size": parse_quantity(value["size"])} if isinstance(value.get("size"), str) else {}
        return {key: sized(item) for key, item in value.items()} | size
    return [sized(item) for item in value] if isinstance(value, list) else value


def rendered(parsed: ParsedConfig) -> Json:
    return {
        "runs": [run_of(run) for run in parsed.runs],
        "docker_registries_auth": registries_of(parsed.docker_registries_auth),
        "task_timeout_interval": parsed.task_timeout_interval,
    }


def run_of(run: RunSpec) -> Json:
    return {
        "name": run.name,
        "tasks": [task_of(task) for task in run.tasks],
        "when": when_of(run.when),
        "docker_registries_auth": registries_of(run.docker_registries_auth),
        "task_timeout_interval": run.task_timeout_interval,
    }


def task_of(task: TaskSpec) -> Json:
    return {
        "name": task.name,
        "runtime": {
            "type": task.runtime.type,
            "arch": task.runtime.arch,
            "containers": [container_of(container) for container in task.runtime.containers],
        },
        "environment": environment_of(task.environment),
        "working_dir": task.working_dir,
        "shell": task.shell,
        "user": task.user,
        "steps": [step_of(step) for step in task.steps],
        "depends": [{"task": depend.task, "conditions": list(depend.conditions)} for depend in task.depends],
        "ignore_failure": task.ignore_failure,
        "approval": task.approval,
        "when": when_of(task.when),
        "docker_registries_auth": registries_of(task.docker_registries_auth),
        "task_timeout_interval": task.task_timeout_interval,
    }


def container_of(container: ContainerSpec) -> Json:
    return {
        "image": container.image,
        "environment": environment_of(container.environment),
        "user": container.user,
        "privileged": container.privileged,
        "entrypoint": container.entrypoint,
        "volumes": [{"path": volume.path, "tmpfs": {"size": volume.tmpfs_size}} for volume in container.volumes],
    }


def step_of(step: StepSpec) -> Json:
    common = {"name": step.name, "when": when_of(step.when)}
    match step:
        case RunStep():
            fields: Json = {"type": "run", "command": step.command, "environment": environment_of(step.environment)}
            return common | fields | {"working_dir": step.working_dir, "shell": step.shell, "tty": step.tty}
        case CloneStep():
            return common | {"type": "clone", "depth": step.depth, "recurse_submodules": step.recurse_submodules}
        case SaveToWorkspaceStep():
            return common | {"type": "save_to_workspace", "contents": contents_of(step)}
        case SaveCacheStep():
            return common | {"type": "save_cache", "key": step.key, "contents": contents_of(step)}
        case RestoreCacheStep():
            return common | {"type": "restore_cache", "keys": list(step.keys), "dest_dir": step.dest_dir}
        case _:
            return common | {"type": "restore_workspace", "dest_dir": step.dest_dir}


def contents_of(step: SaveToWorkspaceStep | SaveCacheStep) -> list[Json]:
    return [{"source_dir": c.source_dir, "dest_dir": c.dest_dir, "paths": list(c.paths)} for c in step.contents]


def environment_of(environment: dict[str, Value]) -> Json:
    return {name: value_of(value) for name, value in environment.items()}


def value_of(value: Value) -> Json:
    return {"type": value.source, "value": value.text}


def registries_of(registries: dict[str, RegistryAuthSpec]) -> Json:
    return {
        registry: {
            "type": auth.type,
            "username": value_of(auth.username),
            "password": value_of(auth.password),
            "auth": value_of(auth.auth),
        }
        for registry, auth in registries.items()
    }


def when_of(when: When | None) -> Json | None:
    if when is None:
        return None
    return {"branch": conditions_of(when.branch), "tag": conditions_of(when.tag), "ref": conditions_of(when.ref)}


def conditions_of(conditions: Conditions | None) -> Json | None:
    if conditions is None:
        return None
    return {
        "include": [{"type": pattern.kind, "match": pattern.text} for pattern in conditions.include],
        "exclude": [{"type": pattern.kind, "match": pattern.text} for pattern in conditions.exclude],
    }
