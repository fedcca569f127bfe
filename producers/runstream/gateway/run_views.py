"""Runs of projects and users as the model's clients know them (docs/reference/api.md)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from runstream import api
from runstream.api import (
    OwnedContainer,
    OwnedRun,
    OwnedRunSummary,
    OwnedSetupStep,
    OwnedStep,
    OwnedTask,
    OwnedTaskSummary,
)
from runstream.database.runs import ReadRun
from runstream.domain.executor_task import ExecutorTask, StepState
from runstream.domain.restart import can_restart
from runstream.domain.run import RestartOrigin, RunState, RunTask
from runstream.events.run_config import RunConfig, RunConfigTask, Step
from runstream.gateway.responses import APPROVERS, step_name
from runstream.ids import run_task_id

_NAMES = {
    "save_to_workspace": "save to workspace",
    "restore_workspace": "restore workspace",
    "save_cache": "save cache",
    "restore_cache": "restore cache",
}
_NO_STEP = StepState()


def summary_view(run: api.RunSummary) -> OwnedRunSummary:
    """Return a run of a list. A task that waits for approval is never one that a restart keeps."""
    return OwnedRunSummary(
        run.counter,
        run.name,
        run.annotations,
        run.phase.value,
        run.result.value,
        tuple(run_task_id(run.id, name) for name in run.tasks_waiting_approval),
        run.enqueue_time,
        run.start_time,
        run.end_time,
    )


def run_view(run: RunState, config: RunConfig, user_ids: Mapping[str, str]) -> OwnedRun:
    """Return a run; `user_ids` are the ids of users by name."""
    tasks = [_summary(run, task, config.tasks[task.name], user_ids) for task in run.tasks.values()]
    return OwnedRun(
        run.counter,
        run.name,
        run.annotations,
        run.phase.value,
        run.result.value,
        run.setup_errors or None,
        run.stop and not run.finished,
        {task.id: task for task in tasks},
        tuple(task.id for task in tasks if task.waiting_approval),
        run.enqueue_time,
        run.start_time,
        run.end_time,
        can_restart(run, config, RestartOrigin(run.id, "all", (), descendants=False, fresh=False)),
        can_restart(run, config, RestartOrigin(run.id, "failed", (), descendants=False, fresh=False)),
    )


def _summary(run: RunState, task: RunTask, config: RunConfigTask, user_ids: Mapping[str, str]) -> OwnedTaskSummary:
    parents = [(run.tasks[depend.task].id, depend.conditions) for depend in config.depends]
    return OwnedTaskSummary(
        task.id,
        task.name,
        task.status.value,
        task.timedout,
        config.level,
        {parent: api.Depend(parent, conditions) for parent, conditions in parents},
        task.waiting_approval,
        task.approved,
        _approvals(task, user_ids),
        task.start_time,
        task.end_time,
        config.task_timeout_interval,
    )


def task_view(read: ReadRun, task: RunTask, user_ids: Mapping[str, str]) -> OwnedTask:
    """Return a task with its steps."""
    config = read.config.tasks[task.name]
    execution = read.record.executor_tasks.get(task.executor_task_id)
    setup = execution.setup_step if execution is not None else _NO_STEP
    return OwnedTask(
        task.id,
        task.name,
        task.status.value,
        task.timedout,
        tuple(OwnedContainer(container.image) for container in config.runtime.containers),
        task.waiting_approval,
        task.approved,
        _approvals(task, user_ids),
        OwnedSetupStep(setup.phase.value, "Task setup", setup.start_time, setup.end_time),
        tuple(_steps(task, config, execution)),
        task.start_time,
        task.end_time,
        config.task_timeout_interval,
    )


def _steps(task: RunTask, config: RunConfigTask, execution: ExecutorTask | None) -> list[OwnedStep]:
    states = execution.steps if execution is not None else (_NO_STEP,) * len(config.steps)
    return [_step(task, config, step, state) for step, state in zip(config.steps, states, strict=False)]


def _step(task: RunTask, config: RunConfigTask, step: Step, state: StepState) -> OwnedStep:
    runs = step.type in ("run", "clone")  # the model makes a run step of a clone step
    return OwnedStep(
        state.phase.value,
        "run" if runs else step.type,
        step_name(step) if runs else _NAMES[step.type],
        step.command if runs else "",
        (step.shell or config.shell) if runs else "",
        state.exit_status if runs else None,
        state.start_time,
        state.end_time,
        state.log_settled or (task.finished and state.start_time is None),
    )


def _approvals(task: RunTask, user_ids: Mapping[str, str]) -> dict[str, str] | None:
    """Return the annotation with the ids of the approvers; None without one."""
    if not task.approvers:
        return None
    names = (author.removeprefix("user:") for author in task.approvers)
    return {APPROVERS: msgspec.json.encode([user_ids.get(name, name) for name in names]).decode()}
