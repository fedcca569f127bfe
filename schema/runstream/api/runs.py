"""Runs: their tasks, steps and attempts, their history, and what a restart would do."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import UNSET, UnsetType, field

from runstream.api.answer import Answer, one_of
from runstream.run_states import RunPhase, RunResult


class Depend(Answer, frozen=True):
    """A task (by its id) that a task waits for, and the outcomes that let it run."""

    task_id: str
    conditions: tuple[str, ...]


class Step(Answer, frozen=True):
    """The state of a step."""

    name: str
    phase: str
    """notstarted, cancelled, running, stopped, success or failed."""
    log_phase: str
    """`finished` once its log is stored."""
    exit_status: int | None
    start_time: datetime | None
    end_time: datetime | None
    timedout: Annotated[str, one_of("", "timeout", "no_output")] = ""
    """The limit of its own that it exceeded."""
    warnings: tuple[str, ...] = ()
    """Warnings of a successful step, such as patterns that selected nothing."""


class Attempt(Answer, frozen=True):
    """A failed attempt at a task, which another attempt followed."""

    attempt: int
    failure: Annotated[str, one_of("failure", "lost", "timeout")]
    executor_task_id: str
    executor_id: str
    fail_error: str
    setup_step: Step
    steps: tuple[Step, ...]
    start_time: datetime | None
    end_time: datetime | None


class Task(Answer, frozen=True, kw_only=True):
    """A task of a run."""

    id: str
    name: str
    level: int
    """0 for a task without dependencies."""
    depends: dict[str, Depend]
    """By the id of the task that it depends on."""
    image: str = ""
    """The image of its first container; empty without one."""
    status: str
    """notstarted, skipped, cancelled, running, stopped, success or failed."""
    kept: bool
    """Whether a restart kept it: id, outcome, logs and archives are those of the earlier run."""
    timedout: bool
    failure: Annotated[str, one_of("", "failure", "lost", "timeout")] = ""
    """The reason why its last attempt failed; empty if it has not failed."""
    attempt: int = 1
    """The number of its last attempt, from 1, which the other fields describe."""
    max_attempts: int = 1
    not_before: datetime | None = None
    """When its last attempt may begin, if it has to wait."""
    attempts: tuple[Attempt, ...] = ()
    """Attempts before the last."""
    annotations: dict[str, str] = field(default_factory=dict)
    skip: bool
    waiting_approval: bool
    approved: bool
    approval_time: datetime | None
    executor_task_id: str = ""
    executor_id: str
    fail_error: str
    """Why it failed, when the cause is not a step."""
    workspace_archives: tuple[int, ...] = ()
    setup_step: Step
    steps: tuple[Step, ...]
    start_time: datetime | None
    end_time: datetime | None


class RunSummary(Answer, frozen=True, kw_only=True):
    """A run in a list."""

    id: str
    creation_time: datetime | UnsetType = field(default=UNSET, name="creationTime")
    sequence: int
    """The order of lists; 0 until the scheduler has seen the run."""
    name: str
    run_config_id: str = ""
    counter: int
    """The number of the run in its project; 0 until the scheduler has seen the run."""
    group: str
    annotations: dict[str, str]
    phase: RunPhase
    result: RunResult
    stop: bool
    timedout: bool = False
    """Whether it exceeded its timeout and failed."""
    reason: str = ""
    """Why it was stopped or cancelled without a user's request."""
    priority: int = 0
    """-100 to 100; when executors are short, higher goes first."""
    paused_at: datetime | None = None
    """When it was paused; None while it is not."""
    setup_errors: tuple[str, ...]
    tasks_waiting_approval: tuple[str, ...]
    """Names of the tasks that wait for approval."""
    enqueue_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    archived: bool
    logs_removed_at: datetime | None = None
    """When retention removed its logs."""
    archives_removed_at: datetime | None = None
    """When retention removed its archives."""

    @property
    def finished(self) -> bool:
        """True once the run has ended."""
        return self.phase in (RunPhase.SETUP_ERROR, RunPhase.CANCELLED, RunPhase.FINISHED)


class Restart(Answer, frozen=True):
    """Which run a restart repeats, and how."""

    run_id: str
    scope: Annotated[str, one_of("all", "failed", "chosen")]
    tasks: tuple[str, ...]
    """Names of the chosen tasks."""
    descendants: bool
    """Whether tasks that depend on them run again, too."""
    fresh: bool
    """Whether variables and secrets were resolved again."""


class Run(RunSummary, frozen=True, kw_only=True):
    """A run with its tasks."""

    tasks: dict[str, Task]
    """By id; empty for a setup error."""
    restart: Restart | None
    """None for a run that is no restart of an earlier one."""
    can_restart_from_scratch: bool
    can_restart_from_failed_tasks: bool

    def task(self, name_or_id: str) -> Task | None:
        """Return the task with this name or id, or None."""
        found = self.tasks.get(name_or_id)
        return found or next((task for task in self.tasks.values() if task.name == name_or_id), None)


class RunEvent(Answer, frozen=True):
    """An event of a commit."""

    type: str
    data: Any


class RunCommit(Answer, frozen=True, kw_only=True):
    """A commit of a run, of an executor task of the run, or a decision to skip one of these."""

    number: int
    """Its number in the history of the run, from 1."""
    position: str
    """EPOCH/PARTITION/SEQUENCE."""
    time: datetime
    actor: str
    """Who decided: `user:NAME`, `scheduler`, `executor:ID` …"""
    commit: str
    """The id of the commit."""
    cause: str
    """The id of the commit that caused it, or another name of its cause; empty for a request."""
    cause_kind: Annotated[str, one_of("commit", "request", "executor_lost", "timeout", "retention", "")] = ""
    """commit: another one of this run. Empty if the log does not know the cause."""
    cause_number: int | None = None
    """The number of the commit that caused it in this history; None for another cause."""
    aggregate: str
    """`run/ID`, `task/ID` or `skip/…`."""
    version: int
    """The number of the commit in its aggregate; 0 for one that cannot be read."""
    task: str
    """The name of the task whose executor task changes; empty for a commit of the run."""
    events: tuple[RunEvent, ...]
    changes: tuple[tuple[tuple[str | int, ...], Any], ...]
    """Paths in the answer of `GET /runs/{run_id}` before the commit, and their values after it."""
    removals: tuple[tuple[str | int, ...], ...] = ()
    """Paths of the answer that the commit removes."""
    error: str = ""
    """Why the commit is set aside, and changes nothing; empty if it is not."""


class DiffSide(Answer, frozen=True):
    """One of the two runs, or moments of a run, that are compared."""

    id: str
    name: str
    group: str
    counter: int
    phase: RunPhase
    result: RunResult
    enqueue_time: datetime
    duration: float | None
    """Seconds from start to end; None if it has not ended."""
    at: str
    """The moment that the request names; empty for now."""


class Difference(Answer, frozen=True):
    """A value that differs."""

    area: Annotated[str, one_of("source", "configuration", "environment", "outcome")]
    """source: annotations and the variables that name the commit. outcome: status, attempt, executor, exit statuses."""
    task: str
    """The name of a task; empty for the whole run."""
    path: tuple[str | int, ...]
    """Where the value is, such as `["steps", 0, "command"]`; empty for a whole task."""
    kind: Annotated[str, one_of("changed", "added", "removed")]
    before: Any
    """None if it was added."""
    after: Any
    """None if it was removed."""


class TaskTiming(Answer, frozen=True):
    """How long a task took in both, in seconds; None for what has not ended, or does not exist."""

    task: str
    after: float | None
    before: float | None
    steps_after: tuple[float | None, ...]
    steps_before: tuple[float | None, ...]


class RunDiff(Answer, frozen=True):
    """What differs in a run from another one, or from the same run at another moment."""

    run: DiffSide
    vs: DiffSide
    """What the run is compared with: `before` in the differences."""
    differences: tuple[Difference, ...]
    """First those of the source, then of the configuration, the environment and the outcome."""
    tasks: tuple[TaskTiming, ...]


class RestartPreview(Answer, frozen=True):
    """The tasks that a restart would run again, and those that it would keep."""

    possible: bool
    reason: str
    """Why the restart is not possible; empty if it is."""
    hint: str
    """What is possible instead."""
    again: tuple[str, ...]
    """Names of the tasks that run again, in the order of the run; of an impossible restart none."""
    kept: tuple[str, ...]
    """Names of the tasks that keep their outcome, logs and archives."""


class SkippedRun(Answer, frozen=True):
    """A run of a configuration file that was not created."""

    name: str
    reason: Annotated[str, one_of("when", "ci_skip")]
    """Its `when` does not match, or the commit message has [ci skip]."""


class ConfigWarning(Answer, frozen=True):
    """A warning about a configuration file."""

    path: str
    line: int | None
    """From 1; None in a file that a program generates."""
    message: str
    hint: str
