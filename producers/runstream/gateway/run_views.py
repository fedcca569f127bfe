"""Runs of projects and users as the model's clients know them (docs/reference/api.md)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from runstream import api
from runstream.api import Answer
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


class RunSummaryView(Answer, frozen=True):
    """A run of a project or user, in a list."""

    number: int
    """0 until the scheduler has seen the run."""
    name: str
    annotations: dict[str, str]
    phase: str
    result: str
    tasks_waiting_approval: tuple[str, ...]
    """Ids of tasks."""
    enqueue_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None


class RunTaskSummaryView(Answer, frozen=True):
    """A task of a run, without its steps."""

    id: str
    name: str
    status: str
    timedout: bool
    level: int
    depends: dict[str, api.Depend]
    waiting_approval: bool
    approved: bool
    approval_annotations: dict[str, str] | None
    start_time: datetime | None
    end_time: datetime | None
    task_timeout_interval: int
    """Nanoseconds; 0 for none."""


class RunView(Answer, frozen=True):
    """A run of a project or user."""

    number: int
    name: str
    annotations: dict[str, str]
    phase: str
    result: str
    setup_errors: tuple[str, ...] | None
    stopping: bool
    tasks: dict[str, RunTaskSummaryView]
    tasks_waiting_approval: tuple[str, ...]
    enqueue_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    can_restart_from_scratch: bool
    can_restart_from_failed_tasks: bool


class ContainerView(Answer, frozen=True):
    """A container of a task."""

    image: str


class SetupStepView(Answer, frozen=True):
    """The setup of a task."""

    phase: str
    name: str
    start_time: datetime | None
    end_time: datetime | None


class StepView(Answer, frozen=True):
    """A step of a task."""

    phase: str
    type: str
    name: str
    command: str
    shell: str
    exit_status: int | None
    """Of run steps."""
    start_time: datetime | None
    end_time: datetime | None
    log_archived: bool


class RunTaskView(Answer, frozen=True):
    """A task of a run, with its steps."""

    id: str
    name: str
    status: str
    timedout: bool
    containers: tuple[ContainerView, ...]
    waiting_approval: bool
    approved: bool
    approval_annotations: dict[str, str] | None
    setup_step: SetupStepView
    steps: tuple[StepView, ...]
    start_time: datetime | None
    end_time: datetime | None
    task_timeout_interval: int


def summary_view(run: api.RunSummary) -> RunSummaryView:
    """Return a run of a list. A task that waits for approval is never one that a restart keeps."""
    return RunSummaryView(
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


def run_view(run: RunState, config: RunConfig, user_ids: Mapping[str, str]) -> RunView:
    """Return a run; `user_ids` are the ids of users by name."""
    tasks = [_summary(run, task, config.tasks[task.name], user_ids) for task in run.tasks.values()]
    return RunView(
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


def _summary(run: RunState, task: RunTask, config: RunConfigTask, user_ids: Mapping[str, str]) -> RunTaskSummaryView:
    parents = [(run.tasks[depend.task].id, depend.conditions) for depend in config.depends]
    return RunTaskSummaryView(
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


def task_view(read: ReadRun, task: RunTask, user_ids: Mapping[str, str]) -> RunTaskView:
    """Return a task with its steps."""
    config = read.config.tasks[task.name]
    execution = read.record.executor_tasks.get(task.executor_task_id)
    setup = execution.setup_step if execution is not None else _NO_STEP
    return RunTaskView(
        task.id,
        task.name,
        task.status.value,
        task.timedout,
        tuple(ContainerView(container.image) for container in config.runtime.containers),
        task.waiting_approval,
        task.approved,
        _approvals(task, user_ids),
        SetupStepView(setup.phase.value, "Task setup", setup.start_time, setup.end_time),
        tuple(_steps(task, config, execution)),
        task.start_time,
        task.end_time,
        config.task_timeout_interval,
    )


def _steps(task: RunTask, config: RunConfigTask, execution: ExecutorTask | None) -> list[StepView]:
    states = execution.steps if execution is not None else (_NO_STEP,) * len(config.steps)
    return [_step(task, config, step, state) for step, state in zip(config.steps, states, strict=False)]


def _step(task: RunTask, config: RunConfigTask, step: Step, state: StepState) -> StepView:
    runs = step.type in ("run", "clone")  # the model makes a run step of a clone step
    return StepView(
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
