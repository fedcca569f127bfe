"""The JSON of runs, tasks and executors (docs/reference/api.md).

A task is keyed by its id, as everywhere on the wire, and says its name, level and dependencies, so that a
client can draw the graph without the run config. Times are UTC; null means that it has not come to that.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from runstream.gateway.bodies import (
    ConcurrencyBody,
    DependBody,
    RegistryAuthBody,
    RetryBody,
    RuntimeBody,
    SaveContentBody,
)


class Shape(msgspec.Struct, frozen=True, gc=False):
    """What every answer has in common."""


class StepShape(Shape, frozen=True):
    """How far a step is."""

    name: str
    phase: str
    log_phase: str
    """`finished` once its log is stored."""
    exit_status: int | None
    start_time: datetime | None
    end_time: datetime | None
    timedout: Literal["", "timeout", "no_output"]
    """Which limit of its own it passed."""
    warnings: list[str]
    """What a step that succeeded should have found and did not, such as files for its patterns."""


class AttemptShape(Shape, frozen=True):
    """An attempt at a task that failed, and was followed by another one."""

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
    """A task of a run; `setup_step` and `steps` are there wherever one run is asked for, not in lists."""

    id: str
    name: str
    level: int
    depends: dict[str, DependBody]
    status: str
    kept: bool
    """Whether it is as an earlier run left it: id, outcome, logs and archives are that run's."""
    timedout: bool
    failure: Literal["", "failure", "lost", "timeout"]
    """How its present attempt failed; empty when it did not."""
    attempt: int
    """The number of its present attempt, from 1; what else is told here is of that one."""
    max_attempts: int
    not_before: datetime | None
    """When its present attempt may begin, if it had to wait."""
    attempts: list[AttemptShape]
    """Those before it."""
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
    """A run as lists show it."""

    id: str
    creationTime: datetime  # noqa: N815  its name on the wire
    sequence: int
    """0 until the scheduler has seen it; lists are ordered by it."""
    name: str
    run_config_id: str
    counter: int
    """The run number; 0 until the scheduler has seen it."""
    group: str
    annotations: dict[str, str]
    phase: str
    result: str
    stop: bool
    timedout: bool
    """Whether it took longer than it may, and failed for that."""
    reason: str
    """Why it was stopped or cancelled, when no user asked for it."""
    priority: int
    paused_at: datetime | None
    """Since when it is paused."""
    setup_errors: list[str]
    tasks_waiting_approval: list[str]
    """Names."""
    enqueue_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    archived: bool


class RestartShape(Shape, frozen=True):
    """Which run a run does again, and how."""

    run_id: str
    scope: Literal["all", "failed", "chosen"]
    tasks: list[str]
    """Names of the chosen tasks."""
    descendants: bool
    """Whether what depends on them runs again, too."""
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
    """A step as it is to be done."""

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
    """A task as it is to be done."""

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
    """What a run is to do; tasks are keyed by the ids that they have in this run."""

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
    """What an action may be sent with, to be refused when the run has changed since; where it was asked for."""


class SkippedRunShape(Shape, frozen=True):
    """A run of a configuration file that was not created."""

    name: str
    reason: Literal["when", "ci_skip"]
    """Its `when` does not match, or the message says [ci skip]."""


class WarningShape(Shape, frozen=True):
    """Something in a configuration file that means nothing."""

    path: str
    line: int | None
    message: str
    hint: str


class RunsCreatedAnswer(Shape, frozen=True):
    """The runs that a configuration file made, in its order; which runs of it were not created, and why."""

    runs: list[RunAnswer]
    skipped: list[SkippedRunShape]
    warnings: list[WarningShape]


class RunsAnswer(Shape, frozen=True):
    """A page of runs."""

    runs: list[RunSummaryShape]
    next_start: int | None
    """The `start` of the next page; null when there is none."""
    cursor: str
    """Asks for the next page, and for nothing else than this list; empty when there is none."""


class ExecutorShape(Shape, frozen=True):
    """An executor and what it said last of itself."""

    executor_id: str
    state: Literal["ready", "suspect", "draining", "drained", "full", "offline", "lost", "deleted"]
    last_seen: datetime | None
    """When it renewed its lease last, or did something last that the log knows."""
    full: str
    """Why it has no room on its disk for a task; empty when it has."""
    clock_skew: float
    """How far its clock is ahead of the log's server, in seconds."""
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
    """One thing that a run waits for."""

    code: str
    message: str
    tasks: list[str]
    """The names of the tasks that it is about; none when it is about the whole run."""
    details: dict[str, Any]


class WhyAnswer(Shape, frozen=True):
    """Why a run waits; phase and result are empty where they are not known."""

    run: str
    phase: str
    result: str
    reasons: list[ReasonShape]
    omitted: int = 0
    """How many further reasons there are."""


class ActionAnswer(Shape, frozen=True):
    """Where an action is in the log; `position` is empty when there was nothing to do."""

    position: str


class VersionAnswer(Shape, frozen=True):
    """What answers."""

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
