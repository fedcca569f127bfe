"""What would run, as JSON: the names are those of the run config; a task's id is its name here."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import to_builtins

from runstream.events.run_config import Container, RunConfigTask, Step
from runstream.runconfig import Problem, RefContext, ResolvedRun, config_context

Json = dict[str, object]


def checked_json(
    file: str, context: RefContext, runs: list[ResolvedRun], unknown: list[str], warnings: Iterable[Problem]
) -> Json:
    """A file that was checked: its runs, those that are not for the ref by name alone."""
    return {
        "file": file,
        "context": config_context(context),
        "runs": [_run(run) for run in runs],
        "unknown_variables": unknown,
        "warnings": [problem_json(warning) for warning in warnings],
    }


def problem_json(problem: Problem) -> Json:
    """What is wrong, or worth a warning; no line in what a program made."""
    return {"path": problem.path, "line": problem.line or None, "message": problem.message, "hint": problem.hint}


def _run(run: ResolvedRun) -> Json:
    if not run.matches:
        return {"name": run.name, "matches": False}
    return {
        "name": run.name,
        "matches": True,
        "static_environment": run.config.static_environment,
        "environment": run.config.environment,
        "run_timeout_interval": run.config.run_timeout_interval,
        "concurrency": to_builtins(run.config.concurrency),
        "priority": run.config.priority,
        "fail_fast": run.config.fail_fast,
        "tasks": {name: _task(task) for name, task in run.config.tasks.items()},
    }


def _task(task: RunConfigTask) -> Json:
    return {
        "id": task.name,
        "name": task.name,
        "level": task.level,
        "depends": {d.task: {"task_id": d.task, "conditions": list(d.conditions)} for d in task.depends},
        "runtime": {
            "type": task.runtime.type,
            "arch": task.runtime.arch,
            "containers": [_container(container) for container in task.runtime.containers],
            "labels": task.runtime.labels,
        },
        "environment": task.environment,
        "working_dir": task.working_dir,
        "shell": task.shell,
        "user": task.user,
        "steps": [_step(step) for step in task.steps],
        "ignore_failure": task.ignore_failure,
        "skip": task.skip,
        "needs_approval": task.needs_approval,
        "docker_registries_auth": to_builtins(task.docker_registries_auth),
        "task_timeout_interval": task.task_timeout_interval,
        "retry": to_builtins(task.retry),
    }


def _container(container: Container) -> Json:
    volumes = [{"path": volume.path, "tmpfs": {"size": volume.tmpfs_size}} for volume in container.volumes]
    return {**to_builtins(container), "volumes": volumes}


def _step(step: Step) -> Json:
    return {**to_builtins(step), "environment": step.environment or {}}
