"""Response models, made from the states of runs, tasks and executors (docs/reference/api.md).

A task is keyed by its id, as everywhere in the API, and has its name, level and dependencies, so that a client can draw
the graph without the run config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from runstream import api
from runstream.api import Answer
from runstream.database.run_lists import summary_of
from runstream.database.runs import ExecutorRecord
from runstream.domain.executor import Offer, Sighting, executor_status
from runstream.domain.executor_task import ExecutorTask, StepState
from runstream.domain.restart import can_restart
from runstream.domain.run import FailedAttempt, RestartOrigin, RunState, RunTask
from runstream.events.run_config import Condition, Container, RunConfig, RunConfigTask, Step, Text, shown_text
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


class ConfigStepShape(Answer, frozen=True):
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


class ConfigTaskShape(Answer, frozen=True):
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


class RunConfigShape(Answer, frozen=True):
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


class RunAnswer(Answer, frozen=True):
    """One run."""

    run: api.Run
    run_config: RunConfigShape | None
    """None if the request asks for the run without it."""
    change_groups_update_tokens: str = ""
    """A token for actions that are refused once the run has changed; empty unless the request asks for one."""


class RunsCreatedAnswer(Answer, frozen=True):
    """The runs of a configuration file, in its order; those that were not created, and why."""

    runs: list[RunAnswer]
    skipped: tuple[api.SkippedRun, ...]
    warnings: tuple[api.ConfigWarning, ...]


class RunHistoryAnswer(Answer, frozen=True):
    """A part of the history of a run."""

    answer: RunAnswer
    """The run after the first of these commits; after its last one, if there are none."""
    commits: tuple[api.RunCommit, ...]
    next: int | None
    """The number of the next commit; None behind the last one."""
    count: int
    """Number of commits that the run has now."""
    ended: bool
    """Whether the run has ended and everything of it is stored: only retention and deletion can follow."""


class ActionAnswer(Answer, frozen=True):
    """The position of an action in the log; empty when there was nothing to do."""

    position: str


SCHEMA_NAMES: Mapping[str, str] = {
    "Attempt": "AttemptShape",
    "ConfigWarning": "WarningShape",
    "Depend": "DependBody",
    "ErrorEntry": "ErrorShape",
    "Executor": "ExecutorShape",
    "ExecutorList": "ExecutorsAnswer",
    "Instance": "InstanceShape",
    "Maintenance": "MaintenanceAnswer",
    "ModeChange": "Change",
    "Page": "RunsAnswer",
    "Part": "PartRecord",
    "Reason": "ReasonShape",
    "Restart": "RestartShape",
    "Run": "RunShape",
    "RunSummary": "RunSummaryShape",
    "Service": "VersionAnswer",
    "SkippedRun": "SkippedRunShape",
    "Step": "StepShape",
    "Task": "RunTaskShape",
    "Why": "WhyAnswer",
}
"""The names of OpenAPI's schemas, where they are not those of the classes."""
_NO_STEP = StepState()
APPROVERS = "approvers"
"""The annotation of a task that names its approvers."""


def run_answer(
    run: RunState, config: RunConfig, executions: Mapping[str, ExecutorTask], *, with_config: bool = True
) -> RunAnswer:
    """Return the response for a run, by default with its config; `executions` are its executor tasks, by id."""
    tasks = {task.id: task_answer(run, task, config, executions) for task in run.tasks.values()}
    return RunAnswer(run_with(run, config, tasks), _run_config(run, config) if with_config else None)


def run_with(run: RunState, config: RunConfig, tasks: dict[str, api.Task]) -> api.Run:
    """Return the run with these tasks, by id; only the fields beside them follow from its state."""
    waiting = [task.name for task in run.tasks.values() if task.waiting_approval]
    return api.Run(
        **msgspec.structs.asdict(summary_of(run, tuple(waiting))),
        tasks=tasks,
        restart=converted(run.restart, api.Restart) if run.restart is not None else None,
        can_restart_from_scratch=_can_restart(run, config, "all"),
        can_restart_from_failed_tasks=_can_restart(run, config, "failed"),
    )


def _can_restart(run: RunState, config: RunConfig, scope: Literal["all", "failed"]) -> bool:
    return can_restart(run, config, RestartOrigin(run.id, scope, (), descendants=False, fresh=False))


def executor_shape(record: ExecutorRecord, sighting: Sighting | None) -> api.Executor:
    """Return an executor, from its registration and its lease."""
    registration = record.executor.registration
    known = [seen for seen in (record.executor.last_seen, record.last_task) if seen is not None]
    return converted(
        registration,
        api.Executor,
        executor_id=record.executor.id,
        state=executor_status(record.executor, sighting, record.open_tasks),
        last_seen=sighting.seen if sighting is not None else max(known, default=None),
        full=sighting.offer.full if sighting is not None else "",
        clock_skew=round(sighting.skew, 3) if sighting is not None else 0.0,
        active_tasks=record.open_tasks,
        version=registration.runstream_version,
        engine=_engine(sighting.offer) if sighting is not None else "",
    )


def _engine(offer: Offer) -> str:
    return f"unreachable: {offer.engine_away}" if offer.engine_away else offer.engine


def step_name(step: Step) -> str:
    """Return the name of a step as people read it."""
    return step.name or (step.command.strip()[:100] if step.type == "run" else step.type)


def task_answer(
    run: RunState, task: RunTask, run_config: RunConfig, executions: Mapping[str, ExecutorTask]
) -> api.Task:
    """Return a task of a run; `executions` are the executor tasks of its attempts, by id."""
    config = run_config.tasks[task.name]
    execution = executions.get(task.executor_task_id)
    approvers = {APPROVERS: msgspec.json.encode(task.approvers).decode()} if task.approvers else {}
    return converted(
        task,
        api.Task,
        level=config.level,
        depends={parent: api.Depend(parent, conditions) for parent, conditions in _parents(run, config)},
        image=next((container.image for container in config.runtime.containers), ""),
        status=task.status.value,
        max_attempts=1 + (config.retry.max if config.retry is not None else 0),
        attempts=tuple(
            _attempt(number, attempt, config, executions.get(attempt.executor_task_id))
            for number, attempt in enumerate(task.attempts, 1)
        ),
        annotations=task.annotations | approvers,
        approval_time=task.approved_at,
        workspace_archives=task.archive_steps,
        **_of_execution(config, execution),
    )


def _attempt(number: int, attempt: FailedAttempt, config: RunConfigTask, execution: ExecutorTask | None) -> api.Attempt:
    return converted(attempt, api.Attempt, attempt=number, failure=attempt.reason, **_of_execution(config, execution))


def _of_execution(config: RunConfigTask, execution: ExecutorTask | None) -> dict[str, object]:
    """Return the fields that say what an executor did; of a task that none has begun, the empty ones."""
    states = execution.steps if execution else (_NO_STEP,) * len(config.steps)
    return {
        "executor_id": execution.executor_id if execution else "",
        "fail_error": execution.fail_error if execution else "",
        "setup_step": _step(execution.setup_step if execution else _NO_STEP, "setup"),
        "steps": [_step(state, step_name(step)) for state, step in zip(states, config.steps, strict=False)],
    }


def _step(state: StepState, name: str) -> api.Step:
    log_phase = "finished" if state.log_settled else "notstarted"
    return converted(state, api.Step, name=name, phase=state.phase.value, log_phase=log_phase)


def _parents(run: RunState, task: RunConfigTask) -> Iterator[tuple[str, tuple[Condition, ...]]]:
    return ((_task_id(run, depend.task), depend.conditions) for depend in task.depends)


def _task_id(run: RunState, name: str) -> str:
    """Return the id of a task in this run; in a run with setup errors, the id that it would have."""
    task = run.tasks.get(name)
    return task.id if task is not None else run_task_id(run.id, name)


def _run_config(run: RunState, config: RunConfig) -> RunConfigShape:
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


def _config_task(run: RunState, task: RunConfigTask) -> ConfigTaskShape:
    containers = [_container(container) for container in task.runtime.containers]
    return converted(
        task,
        ConfigTaskShape,
        id=_task_id(run, task.name),
        depends={parent: DependBody(parent, list(conditions)) for parent, conditions in _parents(run, task)},
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
