"""Response models, made from the states of runs, tasks and executors (docs/reference/api.md).

A task is keyed by its id, as everywhere in the API, and has its name, level and dependencies, so that a client can draw
the graph without the run config. Times are UTC; null means not yet. The classes' names are those of OpenAPI's schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from runstream.database.runs import ExecutorRecord, RunSummary, summary_of
from runstream.domain.executor import Sighting, standing
from runstream.domain.executor_task import ExecutorTask, StepState
from runstream.domain.restart import can_restart
from runstream.domain.run import Attempt, Restart, Run, RunTask
from runstream.events.run_config import Container, RunConfig, RunConfigTask, Step, Text, shown_text
from runstream.gateway.requests import (
    ConcurrencyBody,
    ContainerBody,
    DependBody,
    RegistryAuthBody,
    RetryBody,
    RuntimeBody,
    SaveContentBody,
    TmpfsBody,
    VolumeBody,
    converted,
)
from runstream.ids import run_task_id


class Shape(msgspec.Struct, frozen=True, gc=False):
    """The base of all response models."""


class StepShape(Shape, frozen=True):
    """The state of a step."""

    name: str
    phase: str
    log_phase: str
    """`finished` once its log is stored."""
    exit_status: int | None
    start_time: datetime | None
    end_time: datetime | None
    timedout: Literal["", "timeout", "no_output"]
    """The limit of its own that it exceeded."""
    warnings: list[str]
    """What a successful step did not find, such as files for its patterns."""


class AttemptShape(Shape, frozen=True):
    """A failed attempt at a task, which another attempt followed."""

    attempt: int
    failure: Literal["failure", "lost", "timeout"]
    executor_task_id: str
    executor_id: str
    fail_error: str
    setup_step: StepShape
    steps: list[StepShape]
    start_time: datetime | None
    end_time: datetime | None


class RunTaskShape(Shape, frozen=True):
    """A task of a run."""

    id: str
    name: str
    level: int
    depends: dict[str, DependBody]
    status: str
    kept: bool
    """Whether a restart kept it: id, outcome, logs and archives are those of the earlier run."""
    timedout: bool
    failure: Literal["", "failure", "lost", "timeout"]
    """How its last attempt failed; empty when it did not."""
    attempt: int
    """The number of its last attempt, from 1, which the other fields describe."""
    max_attempts: int
    not_before: datetime | None
    """When its last attempt may begin, if it has to wait."""
    attempts: list[AttemptShape]
    """Attempts before the last."""
    annotations: dict[str, str]
    skip: bool
    waiting_approval: bool
    approved: bool
    approval_time: datetime | None
    executor_task_id: str
    executor_id: str
    fail_error: str
    workspace_archives: list[int]
    setup_step: StepShape
    steps: list[StepShape]
    start_time: datetime | None
    end_time: datetime | None


class RunSummaryShape(Shape, frozen=True):
    """A run in a list."""

    id: str
    creationTime: datetime  # noqa: N815  its name on the wire
    sequence: int
    """The order of lists; 0 until the scheduler has seen the run."""
    name: str
    run_config_id: str
    counter: int
    """The run number; 0 until the scheduler has seen the run."""
    group: str
    annotations: dict[str, str]
    phase: str
    result: str
    stop: bool
    timedout: bool
    """Whether it exceeded its timeout and failed."""
    reason: str
    """Why it was stopped or cancelled without a user's request."""
    priority: int
    paused_at: datetime | None
    """When it was paused; null while it is not."""
    setup_errors: list[str]
    tasks_waiting_approval: list[str]
    """Names of the tasks that wait for approval."""
    enqueue_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    archived: bool


class RestartShape(Shape, frozen=True):
    """Which run a restart repeats, and how."""

    run_id: str
    scope: Literal["all", "failed", "chosen"]
    tasks: list[str]
    """Names of the chosen tasks."""
    descendants: bool
    """Whether tasks that depend on them run again, too."""
    fresh: bool
    """Whether variables and secrets were resolved again."""


class RunShape(RunSummaryShape, frozen=True):
    """A run with its tasks."""

    tasks: dict[str, RunTaskShape]
    """By id; empty for a setup error."""
    restart: RestartShape | None
    """Null for a run that is no restart of an earlier one."""
    can_restart_from_scratch: bool
    can_restart_from_failed_tasks: bool


class ConfigStepShape(Shape, frozen=True):
    """A step of a run config."""

    type: str
    name: str
    command: str
    environment: dict[str, str]
    working_dir: str
    shell: str
    tty: bool
    depth: int
    recurse_submodules: bool
    key: str
    keys: list[str]
    contents: list[SaveContentBody]
    dest_dir: str
    step_timeout_interval: int
    """Nanoseconds; 0 for none, here and below."""
    no_output_timeout: int


class ConfigTaskShape(Shape, frozen=True):
    """A task of a run config."""

    id: str
    name: str
    level: int
    depends: dict[str, DependBody]
    runtime: RuntimeBody
    environment: dict[str, str]
    working_dir: str
    shell: str
    user: str
    steps: list[ConfigStepShape]
    ignore_failure: bool
    skip: bool
    needs_approval: bool
    docker_registries_auth: dict[str, RegistryAuthBody]
    task_timeout_interval: int
    """Nanoseconds; 0 for none."""
    retry: RetryBody | None


class RunConfigShape(Shape, frozen=True):
    """A run config; tasks are keyed by the ids that they have in this run."""

    id: str
    name: str
    group: str
    setup_errors: list[str]
    annotations: dict[str, str]
    static_environment: dict[str, str]
    environment: dict[str, str]
    tasks: dict[str, ConfigTaskShape]
    cache_group: str
    run_timeout_interval: int
    concurrency: ConcurrencyBody
    priority: int
    fail_fast: bool


class RunAnswer(Shape, frozen=True):
    """One run."""

    run: RunShape
    run_config: RunConfigShape
    change_groups_update_tokens: str = ""
    """A token for actions that are refused once the run has changed; empty unless the request asks for one."""


class SkippedRunShape(Shape, frozen=True):
    """A run of a configuration file that was not created."""

    name: str
    reason: Literal["when", "ci_skip"]
    """Its `when` does not match, or the commit message has [ci skip]."""


class WarningShape(Shape, frozen=True):
    """A warning about a configuration file."""

    path: str
    line: int | None
    message: str
    hint: str


class RunsCreatedAnswer(Shape, frozen=True):
    """The runs of a configuration file, in its order; those that were not created, and why."""

    runs: list[RunAnswer]
    skipped: list[SkippedRunShape]
    warnings: list[WarningShape]


class RunsAnswer(Shape, frozen=True):
    """A page of runs."""

    runs: list[RunSummaryShape]
    next_start: int | None
    """The `start` of the next page; null when there is none."""
    cursor: str
    """Requests the next page of this list; empty when there is none."""


class ExecutorShape(Shape, frozen=True):
    """An executor, as it registered last."""

    executor_id: str
    state: Literal["ready", "suspect", "draining", "drained", "full", "offline", "lost", "deleted"]
    last_seen: datetime | None
    """When it last renewed its lease or appended to the log."""
    full: str
    """Why its disk has no room for a task; empty when it has room."""
    clock_skew: float
    """How far its clock is ahead of the clock of NATS, in seconds."""
    archs: list[str]
    labels: dict[str, str]
    allow_privileged_containers: bool
    allow_host: bool
    allow_pod: bool
    active_tasks_limit: int
    active_tasks: int
    dynamic: bool
    executor_group: str
    version: str
    sandbox: str


class ExecutorsAnswer(Shape, frozen=True):
    """All executors, by id."""

    executors: list[ExecutorShape]


class ReasonShape(Shape, frozen=True):
    """One reason why a run waits."""

    code: str
    message: str
    tasks: list[str]
    """Names of the tasks that it concerns; none when it concerns the whole run."""
    details: dict[str, Any]


class WhyAnswer(Shape, frozen=True):
    """Why a run waits; phase and result are empty where they are unknown."""

    run: str
    phase: str
    result: str
    reasons: list[ReasonShape]
    omitted: int = 0
    """Number of further reasons."""


class ActionAnswer(Shape, frozen=True):
    """The position of an action in the log; empty when there was nothing to do."""

    position: str


class VersionAnswer(Shape, frozen=True):
    """The service's version and its log."""

    service: str
    version: str
    namespace: str
    epoch: int
    partitions: int


class ErrorShape(Shape, frozen=True):
    """One entry of an error's body."""

    code: str
    details: dict[str, Any]
    message: str
    hint: str
    kind: str
    chain: list[str] = []
    """Only with Runstream-Detailed-Errors: 1."""


_NO_STEP = StepState()
APPROVERS = "approvers"
"""The annotation of a task that names its approvers."""


def run_answer(run: Run, config: RunConfig, executions: Mapping[str, ExecutorTask]) -> RunAnswer:
    """Return the response for a run and its config; `executions` are its executor tasks, by id."""
    tasks = {task.id: _task(run, task, config.tasks[task.name], executions) for task in run.tasks.values()}
    waiting = [task.name for task in run.tasks.values() if task.waiting_approval]
    shape = RunShape(
        **msgspec.structs.asdict(run_summary(summary_of(run, tuple(waiting)))),
        tasks=tasks,
        restart=converted(run.restart, RestartShape) if run.restart is not None else None,
        can_restart_from_scratch=_can_restart(run, config, "all"),
        can_restart_from_failed_tasks=_can_restart(run, config, "failed"),
    )
    return RunAnswer(shape, _run_config(run, config))


def run_summary(run: RunSummary) -> RunSummaryShape:
    """Return a run as lists show it."""
    return converted(
        run,
        RunSummaryShape,
        creationTime=run.enqueue_time,
        run_config_id=run.run_config,
        phase=run.phase.value,
        result=run.result.value,
    )


def _can_restart(run: Run, config: RunConfig, scope: Literal["all", "failed"]) -> bool:
    return can_restart(run, config, Restart(run.id, scope, (), descendants=False, fresh=False))


def executor_shape(record: ExecutorRecord, sighting: Sighting | None) -> ExecutorShape:
    """Return an executor, from its registration and its lease."""
    said = record.executor.registration
    known = [seen for seen in (record.executor.last_seen, record.last_task) if seen is not None]
    return converted(
        said,
        ExecutorShape,
        executor_id=record.executor.id,
        state=standing(record.executor, sighting, record.open_tasks),
        last_seen=sighting.seen if sighting is not None else max(known, default=None),
        full=sighting.offer.full if sighting is not None else "",
        clock_skew=round(sighting.skew, 3) if sighting is not None else 0.0,
        active_tasks=record.open_tasks,
        version=said.runstream_version,
    )


def step_name(step: Step) -> str:
    """Return the name of a step as people read it."""
    return step.name or (step.command.strip()[:100] if step.type == "run" else step.type)


def _task(run: Run, task: RunTask, config: RunConfigTask, executions: Mapping[str, ExecutorTask]) -> RunTaskShape:
    execution = executions.get(task.executor_task_id)
    approvers = {APPROVERS: msgspec.json.encode(task.approvers).decode()} if task.approvers else {}
    return converted(
        task,
        RunTaskShape,
        level=config.level,
        depends=_depends(run, config),
        status=task.status.value,
        max_attempts=1 + (config.retry.max if config.retry is not None else 0),
        attempts=[
            _attempt(number, attempt, config, executions.get(attempt.executor_task_id))
            for number, attempt in enumerate(task.attempts, 1)
        ],
        annotations=task.annotations | approvers,
        approval_time=task.approved_at,
        workspace_archives=task.archive_steps,
        **_of_execution(config, execution),
    )


def _attempt(number: int, attempt: Attempt, config: RunConfigTask, execution: ExecutorTask | None) -> AttemptShape:
    return converted(attempt, AttemptShape, attempt=number, failure=attempt.reason, **_of_execution(config, execution))


def _of_execution(config: RunConfigTask, execution: ExecutorTask | None) -> dict[str, object]:
    """Return the fields that say what an executor did; of a task that none has begun, the empty ones."""
    states = execution.steps if execution else (_NO_STEP,) * len(config.steps)
    return {
        "executor_id": execution.executor_id if execution else "",
        "fail_error": execution.fail_error if execution else "",
        "setup_step": _step(execution.setup_step if execution else _NO_STEP, "setup"),
        "steps": [_step(state, step_name(step)) for state, step in zip(states, config.steps, strict=False)],
    }


def _step(state: StepState, name: str) -> StepShape:
    log_phase = "finished" if state.log_settled else "notstarted"
    return converted(state, StepShape, name=name, phase=state.phase.value, log_phase=log_phase)


def _depends(run: Run, task: RunConfigTask) -> dict[str, DependBody]:
    parents = ((_task_id(run, depend.task), list(depend.conditions)) for depend in task.depends)
    return {parent: DependBody(parent, conditions) for parent, conditions in parents}


def _task_id(run: Run, name: str) -> str:
    """Return the id of a task in this run; in a run with setup errors, the id that it would have."""
    task = run.tasks.get(name)
    return task.id if task is not None else run_task_id(run.id, name)


def _run_config(run: Run, config: RunConfig) -> RunConfigShape:
    tasks = (_config_task(run, task) for task in config.tasks.values())
    return converted(
        config,
        RunConfigShape,
        id=run.run_config,
        group=run.group,
        setup_errors=run.setup_errors,
        annotations=run.annotations,
        static_environment=_shown(config.static_environment),
        environment=_shown(config.environment),
        tasks={task.id: task for task in tasks},
        concurrency=ConcurrencyBody(config.concurrency.policy, config.concurrency.max_waiting),
    )


def _config_task(run: Run, task: RunConfigTask) -> ConfigTaskShape:
    containers = [_container(container) for container in task.runtime.containers]
    return converted(
        task,
        ConfigTaskShape,
        id=_task_id(run, task.name),
        depends=_depends(run, task),
        runtime=converted(task.runtime, RuntimeBody, containers=containers),
        environment=_shown(task.environment),
        steps=[converted(step, ConfigStepShape, environment=_shown(step.environment or {})) for step in task.steps],
        docker_registries_auth={
            registry: RegistryAuthBody(auth.type, *map(shown_text, (auth.username, auth.password, auth.auth)))
            for registry, auth in task.docker_registries_auth.items()
        },
        # Not converted: a stored run config may be older than the bounds of a request.
        retry=RetryBody(task.retry.max, task.retry.backoff, list(task.retry.on)) if task.retry is not None else None,
    )


def _container(container: Container) -> ContainerBody:
    volumes = [VolumeBody(volume.path, TmpfsBody(volume.tmpfs_size)) for volume in container.volumes]
    return converted(container, ContainerBody, environment=_shown(container.environment), volumes=volumes)


def _shown(environment: Mapping[str, Text]) -> dict[str, str]:
    return {name: shown_text(text) for name, text in environment.items()}
