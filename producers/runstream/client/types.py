"""What the service tells, as frozen data. Times are in UTC; None means that it has not come to that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import overload


class RunPhase(StrEnum):
    """Where a run is in its life."""

    SETUP_ERROR = "setuperror"
    QUEUED = "queued"
    CANCELLED = "cancelled"
    RUNNING = "running"
    FINISHED = "finished"


class RunResult(StrEnum):
    """How a run ended; it can be known while tasks still run."""

    UNKNOWN = "unknown"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Depend:
    """On which task another waits, and in which of its outcomes."""

    task_id: str
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """How far a step of a task is."""

    name: str
    phase: str
    """notstarted, cancelled, running, stopped, success or failed."""
    log_phase: str
    """`finished` once its log is stored."""
    exit_status: int | None
    start_time: datetime | None
    end_time: datetime | None
    timedout: str = ""
    """Which limit of its own it passed: timeout or no_output."""
    warnings: tuple[str, ...] = ()
    """What a step that succeeded should have found and did not, such as files for its patterns."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a task that failed, and was followed by another one."""

    attempt: int
    failure: str
    """failure, lost or timeout."""
    executor_task_id: str
    executor_id: str
    fail_error: str
    setup_step: Step
    steps: tuple[Step, ...]
    start_time: datetime | None
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a run."""

    id: str
    name: str
    level: int
    """0 for a task that waits for no other."""
    depends: dict[str, Depend]
    """By the id of the task that it waits for."""
    status: str
    """notstarted, skipped, cancelled, running, stopped, success or failed."""
    kept: bool
    """Whether it is as an earlier run left it, which this one restarts."""
    timedout: bool
    skip: bool
    waiting_approval: bool
    approved: bool
    approval_time: datetime | None
    executor_id: str
    fail_error: str
    """Why it failed, when no step says so."""
    setup_step: Step
    steps: tuple[Step, ...]
    start_time: datetime | None
    end_time: datetime | None
    annotations: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    """How its present attempt failed: failure, lost or timeout; empty when it did not."""
    attempt: int = 1
    """The number of its present attempt: what else is told here is of that one."""
    max_attempts: int = 1
    not_before: datetime | None = None
    """When its present attempt may begin, if it had to wait."""
    attempts: tuple[Attempt, ...] = ()
    """Those before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run as lists show it."""

    id: str
    sequence: int
    """0 until the service has given it its place; lists are ordered by it."""
    name: str
    counter: int
    """The number of the run in its project; 0 until it is given."""
    group: str
    annotations: dict[str, str]
    phase: RunPhase
    result: RunResult
    stop: bool
    timedout: bool = False
    """Whether it took longer than it may, and failed for that."""
    reason: str = ""
    """Why it was stopped or cancelled, when no user asked for it."""
    priority: int = 0
    """-100 to 100; where executors are short, higher goes first."""
    paused_at: datetime | None = None
    """Since when it is paused."""
    setup_errors: tuple[str, ...]
    tasks_waiting_approval: tuple[str, ...]
    enqueue_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    archived: bool

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.phase in (RunPhase.SETUP_ERROR, RunPhase.CANCELLED, RunPhase.FINISHED)


@dataclass(frozen=True, slots=True)
class Restart:
    """Which run a run does again, and how."""

    run_id: str
    scope: str
    """all, failed or chosen."""
    tasks: tuple[str, ...]
    """Names of the chosen tasks."""
    descendants: bool
    """Whether what depends on them runs again, too."""
    fresh: bool
    """Whether variables and secrets were resolved again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunSummary):
    """A run with its tasks."""

    tasks: dict[str, Task]
    """By id; empty for a setup error."""
    restart: Restart | None
    """None for a run that is no restart of an earlier one."""
    can_restart_from_scratch: bool
    can_restart_from_failed_tasks: bool

    def task(self, name_or_id: str) -> Task | None:
        """The task of this name or id; None when there is none."""
        found = self.tasks.get(name_or_id)
        return found or next((task for task in self.tasks.values() if task.name == name_or_id), None)


@dataclass(frozen=True, slots=True)
class SkippedRun:
    """A run of a configuration file that was not created."""

    name: str
    reason: str
    """`when`: it does not match; `ci_skip`: the message says [ci skip]."""


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """Something in a configuration file that means nothing."""

    path: str
    line: int | None
    """From 1; None in what a program made."""
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class CreatedRuns(Sequence[Run]):
    """The runs that a configuration file made, in its order; and what else there is to say of the file."""

    runs: tuple[Run, ...]
    skipped: tuple[SkippedRun, ...]
    warnings: tuple[ConfigWarning, ...]

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Run, ...]: ...

    def __getitem__(self, index: int | slice) -> Run | tuple[Run, ...]:
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that a run waits for."""

    code: str
    """group, dependency, executorsFull …"""
    message: str
    tasks: tuple[str, ...]
    """The names of the tasks that it is about; none when it is about the whole run."""
    details: dict[str, object]


@dataclass(frozen=True, slots=True)
class Why:
    """Why a run waits; phase and result are empty where they are not known."""

    run: str
    phase: str
    result: str
    reasons: tuple[Reason, ...]
    omitted: int = 0
    """How many further reasons there are."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some runs, in the order asked for."""

    runs: tuple[RunSummary, ...]
    next_start: int | None
    """The `start` of the next page; None when there is none."""
    cursor: str
    """Asks for the next page of this list; empty when there is none."""


@dataclass(frozen=True, slots=True)
class Executor:
    """An executor, and what it said last of itself."""

    executor_id: str
    state: str
    """ready, suspect, draining, drained, full, offline or lost."""
    archs: tuple[str, ...]
    labels: dict[str, str]
    allow_privileged_containers: bool
    allow_host: bool
    allow_pod: bool
    active_tasks_limit: int
    """0 for no limit."""
    active_tasks: int
    version: str
    sandbox: str = ""
    """How host tasks are kept apart from its machine: `sandboxed`, `off`, `missing: <why>`; empty if not known."""
    last_seen: datetime | None = None
    """When it renewed its lease last, or did something last that the log knows."""
    full: str = ""
    """Why it has no room on its disk for a task; empty when it has."""
    clock_skew: float = 0.0
    """How far its clock is ahead of the log's server, in seconds."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    type: str
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Commit:
    """What one decision changed in one aggregate."""

    id: str
    aggregate: str
    """Which one: `run/<id>`, `task/<id>`, `executor/<id>` or `runconfig/<hash>`."""
    version: int
    time: datetime
    actor: str
    cause: str
    events: tuple[Event, ...]
    position: str
    """Where it is: epoch/partition/sequence."""
    place: str
    """The place behind it in the whole log: where a tail goes on."""


@dataclass(frozen=True, slots=True)
class Service:
    """What answers."""

    service: str
    version: str
    namespace: str
    epoch: int
    partitions: int


@dataclass(frozen=True, slots=True)
class Stall:
    """A consumer of the log that stands still in one partition, or has parked commits."""

    component: str
    """`projection` or `archive`."""
    kind: str
    """`behind`: nothing goes on; `parked`: some commits are left out, the others go on."""
    partition: int
    position: str
    """EPOCH/PARTITION/SEQUENCE of the first commit that waits."""
    since: datetime
    commits: int
    """How many commits wait."""
    why: str
    todo: str
    """The command that shows more, or helps."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a service can work."""

    status: str
    """`ready` or `not ready`."""
    checks: dict[str, str]
    """Each part that it needs: `ok`, or what is wrong."""
    stalls: tuple[Stall, ...] = ()
    """Consumers of the log that stand still, and parked commits; the service works all the same."""

    @property
    def ready(self) -> bool:
        """True when every check is `ok`."""
        return self.status == "ready"
