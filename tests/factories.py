"""Events as most tests need them: a test names only what it is about."""

from __future__ import annotations

from collections.abc import Mapping

from runstream.events.executor import ExecutorRegistered
from runstream.events.executor_task import ExecutorTaskAssigned
from runstream.events.run import RunCreated

GROUP = "/project/p/branch/main"


def run_created(
    name: str = "run",
    group: str = GROUP,
    run_config: str = "0" * 64,
    *,
    annotations: Mapping[str, str] | None = None,
    setup_errors: tuple[str, ...] = (),
    request: str = "",
) -> RunCreated:
    """A run of a group whose configuration has no error."""
    return RunCreated(name, group, run_config, dict(annotations or {}), setup_errors, request)


def task_assigned(
    executor: str = "e1",
    run_id: str = "run",
    run_task_id: str = "run task",
    *,
    task: str = "build",
    run_config: str = "0" * 64,
    group: str = GROUP,
    counter: int = 1,
    steps: int = 1,
    timeout: int = 0,
    attempt: int = 1,
    workspaces: Mapping[str, str] | None = None,
) -> ExecutorTaskAssigned:
    """The first attempt of a task of one step without a timeout."""
    return ExecutorTaskAssigned(
        executor, run_id, run_task_id, task, run_config, group, counter, steps, timeout, attempt, dict(workspaces or {})
    )


def executor_registered(*, labels: Mapping[str, str] | None = None, active_tasks_limit: int = 2) -> ExecutorRegistered:
    """An executor of this machine's kind that runs host tasks."""
    return ExecutorRegistered(
        archs=("amd64",),
        labels=dict(labels or {}),
        allow_privileged_containers=False,
        allow_host=True,
        allow_pod=False,
        active_tasks_limit=active_tasks_limit,
        dynamic=False,
        executor_group="",
        runstream_version="1",
    )
