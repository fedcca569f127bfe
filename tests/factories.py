"""Events as most tests need them: a test names only what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from runstream.events.executor import ExecutorRegistered
from runstream.events.executor_task import ExecutorTaskAssigned
from runstream.events.run import KeptTask, RunCreated

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


def task_kept(
    task: str,
    identity: str,
    executor_task_id: str = "",
    *,
    attempt: int = 1,
    annotations: Mapping[str, str] | None = None,
    approver: str = "",
    approved_at: datetime | None = None,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
) -> KeptTask:
    """A task that succeeded; without an executor task, one that was skipped."""
    return KeptTask(
        task,
        identity,
        status="success" if executor_task_id else "skipped",
        executor_task_id=executor_task_id,
        attempt=attempt,
        timedout=False,
        annotations=dict(annotations or {}),
        approvers=(approver,) if approver else (),
        approved_at=approved_at,
        start_time=start_time,
        end_time=end_time,
    )


def executor_registered(
    group: str = "",
    *,
    archs: tuple[str, ...] = ("amd64",),
    labels: Mapping[str, str] | None = None,
    allow_privileged_containers: bool = False,
    active_tasks_limit: int = 2,
    dynamic: bool = False,
    version: str = "1",
) -> ExecutorRegistered:
    """An executor of this machine's kind that runs host tasks."""
    return ExecutorRegistered(
        archs=archs,
        labels=dict(labels or {}),
        allow_privileged_containers=allow_privileged_containers,
        allow_host=True,
        allow_pod=False,
        active_tasks_limit=active_tasks_limit,
        dynamic=dynamic,
        executor_group=group,
        runstream_version=version,
    )
