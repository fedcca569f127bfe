"""From the state of runs, tasks and executors to what the wire says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from runstream.database.runs import ExecutorRecord, RunSummary, summary_of
from runstream.domain.executor import Sighting, standing
from runstream.domain.executor_task import ExecutorTask, StepState
from runstream.domain.restart import can_restart
from runstream.domain.run import Attempt, Restart, Run, RunTask
from runstream.events.run_config import Container, RunConfig, RunConfigTask, Step, Text, shown_text
from runstream.gateway.bodies import (
    ConcurrencyBody,
    ContainerBody,
    DependBody,
    RegistryAuthBody,
    RetryBody,
    RuntimeBody,
    SaveContentBody,
    TmpfsBody,
    VolumeBody,
)
from runstream.gateway.shapes import (
    AttemptShape,
    ConfigStepShape,
    ConfigTaskShape,
    ExecutorShape,
    RestartShape,
    RunAnswer,
    RunConfigShape,
    RunShape,
    RunSummaryShape,
    RunTaskShape,
    StepShape,
)
from runstream.ids import run_task_id

_NO_STEP = StepState()
APPROVERS = "approvers"
"""The annotation of a task that says who approved it."""


def run_answer(run: Run, config: RunConfig, executions: Mapping[str, ExecutorTask]) -> RunAnswer:
    """A run and its config; `executions` are the executor tasks that there are, by id."""
    tasks = {task.id: _task(run, task, config.tasks[task.name], executions) for task in run.tasks.values()}
    waiting = [task.name for task in run.tasks.values() if task.waiting_approval]
    shape = RunShape(
        **msgspec.structs.asdict(run_summary(summary_of(run, tuple(waiting)))),
        tasks=tasks,
        restart=_restart(run.restart) if run.restart is not None else None,
        can_restart_from_scratch=_can_restart(run, config, "all"),
        can_restart_from_failed_tasks=_can_restart(run, config, "failed"),
    )
    return RunAnswer(shape, _run_config(run, config))


def run_summary(run: RunSummary) -> RunSummaryShape:
    """A run as lists show it."""
    return RunSummaryShape(
        id=run.id,
        creationTime=run.enqueue_time,
        sequence=run.sequence,
        name=run.name,
        run_config_id=run.run_config,
        counter=run.counter,
        group=run.group,
        annotations=run.annotations,
        phase=run.phase.value,
        result=run.result.value,
        stop=run.stop,
        timedout=run.timedout,
        reason=run.reason,
        priority=run.priority,
        paused_at=run.paused_at,
        setup_errors=list(run.setup_errors),
        tasks_waiting_approval=list(run.tasks_waiting_approval),
        enqueue_time=run.enqueue_time,
        start_time=run.start_time,
        end_time=run.end_time,
        archived=run.archived,
    )


def _restart(restart: Restart) -> RestartShape:
    return RestartShape(
        run_id=restart.run_id,
        scope=restart.scope,
        tasks=list(restart.tasks),
        descendants=restart.descendants,
        fresh=restart.fresh,
    )


def _can_restart(run: Run, config: RunConfig, scope: Literal["all", "failed"]) -> bool:
    return can_restart(run, config, Restart(run.id, scope, (), descendants=False, fresh=False))


def executor_shape(record: ExecutorRecord, sighting: Sighting | None) -> ExecutorShape:
    """An executor, what it said last of itself, and what its lease says now."""
    said = record.executor.registration
    known = [seen for seen in (record.executor.last_seen, record.last_task) if seen is not None]
    return ExecutorShape(
        executor_id=record.executor.id,
        state=standing(record.executor, sighting, record.open_tasks),
        last_seen=sighting.seen if sighting is not None else max(known, default=None),
        full=sighting.offer.full if sighting is not None else "",
        clock_skew=round(sighting.skew, 3) if sighting is not None else 0.0,
        archs=list(said.archs),
        labels=said.labels,
        allow_privileged_containers=said.allow_privileged_containers,
        allow_host=said.allow_host,
        allow_pod=said.allow_pod,
        active_tasks_limit=said.active_tasks_limit,
        active_tasks=record.open_tasks,
        dynamic=said.dynamic,
        executor_group=said.executor_group,
        version=said.runstream_version,
        sandbox=said.sandbox,
    )


def step_name(step: Step) -> str:
    """What a step is called for people."""
    return step.name or (step.command.strip()[:100] if step.type == "run" else step.type)


def _task(run: Run, task: RunTask, config: RunConfigTask, executions: Mapping[str, ExecutorTask]) -> RunTaskShape:
    execution = executions.get(task.executor_task_id)
    approvers = {APPROVERS: msgspec.json.encode(task.approvers).decode()} if task.approvers else {}
    return RunTaskShape(
        id=task.id,
        name=task.name,
        level=config.level,
        depends=_depends(run, config),
        status=task.status.value,
        kept=task.kept,
        timedout=task.timedout,
        failure=task.failure,
        attempt=task.attempt,
        max_attempts=1 + (config.retry.max if config.retry is not None else 0),
        not_before=task.not_before,
        attempts=[
            _attempt(number, attempt, config, executions.get(attempt.executor_task_id))
            for number, attempt in enumerate(task.attempts, 1)
        ],
        annotations=task.annotations | approvers,
        skip=task.skip,
        waiting_approval=task.waiting_approval,
        approved=task.approved,
        approval_time=task.approved_at,
        executor_task_id=task.executor_task_id,
        executor_id=execution.executor_id if execution else "",
        fail_error=execution.fail_error if execution else "",
        workspace_archives=list(task.archive_steps),
        setup_step=_step(execution.setup_step if execution else _NO_STEP, "setup"),
        steps=_steps(config, execution),
        start_time=task.start_time,
        end_time=task.end_time,
    )


def _attempt(number: int, attempt: Attempt, config: RunConfigTask, execution: ExecutorTask | None) -> AttemptShape:
    return AttemptShape(
        attempt=number,
        failure=attempt.reason,
        executor_task_id=attempt.executor_task_id,
        executor_id=execution.executor_id if execution else "",
        fail_error=execution.fail_error if execution else "",
        setup_step=_step(execution.setup_step if execution else _NO_STEP, "setup"),
        steps=_steps(config, execution),
        start_time=attempt.start_time,
        end_time=attempt.end_time,
    )


def _steps(config: RunConfigTask, execution: ExecutorTask | None) -> list[StepShape]:
    states = execution.steps if execution else (_NO_STEP,) * len(config.steps)
    return [_step(state, step_name(step)) for state, step in zip(states, config.steps, strict=False)]


def _step(state: StepState, name: str) -> StepShape:
    return StepShape(
        name=name,
        phase=state.phase.value,
        log_phase="finished" if state.log_settled else "notstarted",
        exit_status=state.exit_status,
        start_time=state.start_time,
        end_time=state.end_time,
        timedout=state.timedout,
        warnings=list(state.warnings),
    )


def _depends(run: Run, task: RunConfigTask) -> dict[str, DependBody]:
    parents = ((_task_id(run, depend.task), list(depend.conditions)) for depend in task.depends)
    return {parent: DependBody(parent, conditions) for parent, conditions in parents}


def _task_id(run: Run, name: str) -> str:
    """The id of a task in this run; it would have this one if the run had no setup errors."""
    task = run.tasks.get(name)
    return task.id if task is not None else run_task_id(run.id, name)


def _run_config(run: Run, config: RunConfig) -> RunConfigShape:
    tasks = (_config_task(run, task) for task in config.tasks.values())
    return RunConfigShape(
        id=run.run_config,
        name=config.name,
        group=run.group,
        setup_errors=list(run.setup_errors),
        annotations=run.annotations,
        static_environment=_shown(config.static_environment),
        environment=_shown(config.environment),
        tasks={task.id: task for task in tasks},
        cache_group=config.cache_group,
        run_timeout_interval=config.run_timeout_interval,
        concurrency=ConcurrencyBody(config.concurrency.policy, config.concurrency.max_waiting),
        priority=config.priority,
        fail_fast=config.fail_fast,
    )


def _config_task(run: Run, task: RunConfigTask) -> ConfigTaskShape:
    containers = [_container(container) for container in task.runtime.containers]
    return ConfigTaskShape(
        id=_task_id(run, task.name),
        name=task.name,
        level=task.level,
        depends=_depends(run, task),
        runtime=RuntimeBody(task.runtime.type, task.runtime.arch, containers, task.runtime.labels),
        environment=_shown(task.environment),
        working_dir=task.working_dir,
        shell=task.shell,
        user=task.user,
        steps=[_config_step(step) for step in task.steps],
        ignore_failure=task.ignore_failure,
        skip=task.skip,
        needs_approval=task.needs_approval,
        docker_registries_auth={
            registry: RegistryAuthBody(auth.type, *map(shown_text, (auth.username, auth.password, auth.auth)))
            for registry, auth in task.docker_registries_auth.items()
        },
        task_timeout_interval=task.task_timeout_interval,
        retry=RetryBody(task.retry.max, task.retry.backoff, list(task.retry.on)) if task.retry is not None else None,
    )


def _config_step(step: Step) -> ConfigStepShape:
    return ConfigStepShape(
        type=step.type,
        name=step.name,
        command=step.command,
        environment=_shown(step.environment or {}),
        working_dir=step.working_dir,
        shell=step.shell,
        tty=step.tty,
        depth=step.depth,
        recurse_submodules=step.recurse_submodules,
        key=step.key,
        keys=list(step.keys),
        contents=[SaveContentBody(c.source_dir, c.dest_dir, list(c.paths)) for c in step.contents],
        dest_dir=step.dest_dir,
        step_timeout_interval=step.step_timeout_interval,
        no_output_timeout=step.no_output_timeout,
    )


def _container(container: Container) -> ContainerBody:
    return ContainerBody(
        image=container.image,
        environment=_shown(container.environment),
        user=container.user,
        privileged=container.privileged,
        entrypoint=container.entrypoint,
        volumes=[VolumeBody(volume.path, TmpfsBody(volume.tmpfs_size)) for volume in container.volumes],
    )


def _shown(environment: Mapping[str, Text]) -> dict[str, str]:
    return {name: shown_text(text) for name, text in environment.items()}
