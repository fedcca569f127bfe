"""Requests and responses of the client as frozen data. Times are in UTC; None for what has not happened yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import overload


class RunPhase(StrEnum):
    """The phase of a run."""

    SETUP_ERROR = "setuperror"
    QUEUED = "queued"
    CANCELLED = "cancelled"
    RUNNING = "running"
    FINISHED = "finished"


class RunResult(StrEnum):
    """The result of a run; it can be known while tasks still run."""

    UNKNOWN = "unknown"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Depend:
    """A dependency: on which task, and on which of its outcomes."""

    task_id: str
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """The state of a step of a task."""

    name: str
    phase: str
    """notstarted, cancelled, running, stopped, success or failed."""
    log_phase: str
    """`finished` once its log is stored."""
    exit_status: int | None
    start_time: datetime | None
    end_time: datetime | None
    timedout: str = ""
    """The limit that it exceeded: timeout or no_output."""
    warnings: tuple[str, ...] = ()
    """What a step that succeeded did not find, such as files that match its patterns."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failed attempt at a task that was followed by another one."""

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
    """0 for a task without dependencies."""
    depends: dict[str, Depend]
    """By the id of the task that it depends on."""
    status: str
    """notstarted, skipped, cancelled, running, stopped, success or failed."""
    kept: bool
    """Whether a restart took it over from the earlier run instead of running it again."""
    timedout: bool
    skip: bool
    waiting_approval: bool
    approved: bool
    approval_time: datetime | None
    executor_id: str
    fail_error: str
    """Why it failed, when the cause is not a step."""
    setup_step: Step
    steps: tuple[Step, ...]
    start_time: datetime | None
    end_time: datetime | None
    annotations: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    """How the current attempt failed: failure, lost or timeout; empty when it did not."""
    attempt: int = 1
    """The current attempt, from 1; all other fields but `attempts` describe it."""
    max_attempts: int = 1
    not_before: datetime | None = None
    """When the current attempt may start, if it had to wait."""
    attempts: tuple[Attempt, ...] = ()
    """The earlier attempts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run as an entry of a list."""

    id: str
    sequence: int
    """The order of lists; 0 until the service has assigned it."""
    name: str
    counter: int
    """The number of the run in its project; 0 until it is assigned."""
    group: str
    annotations: dict[str, str]
    phase: RunPhase
    result: RunResult
    stop: bool
    timedout: bool = False
    """Whether it exceeded its time limit and failed."""
    reason: str = ""
    """Why the service stopped or cancelled it; empty when a user did."""
    priority: int = 0
    """-100 to 100; when executors are short, higher goes first."""
    paused_at: datetime | None = None
    """When it was paused; None when it is not."""
    setup_errors: tuple[str, ...]
    tasks_waiting_approval: tuple[str, ...]
    enqueue_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    archived: bool

    @property
    def finished(self) -> bool:
        """True once the run has ended."""
        return self.phase in (RunPhase.SETUP_ERROR, RunPhase.CANCELLED, RunPhase.FINISHED)


@dataclass(frozen=True, slots=True)
class Restart:
    """The earlier run that a run restarts, and how."""

    run_id: str
    scope: str
    """all, failed or chosen."""
    tasks: tuple[str, ...]
    """Names of the chosen tasks."""
    descendants: bool
    """Whether the tasks that depend on them run again, too."""
    fresh: bool
    """Whether variables and secrets were resolved again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunSummary):
    """A run with its tasks."""

    tasks: dict[str, Task]
    """By id; empty for a setup error."""
    restart: Restart | None
    """None unless it restarts an earlier run."""
    can_restart_from_scratch: bool
    can_restart_from_failed_tasks: bool

    def task(self, name_or_id: str) -> Task | None:
        """Return the task with this name or id, or None."""
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
    """A warning about a configuration file, such as a field without effect."""

    path: str
    line: int | None
    """From 1; None in a file that a program generates."""
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class CreatedRuns(Sequence[Run]):
    """The runs that were created from a configuration file, in its order, with skipped runs and warnings."""

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
    """One reason why a run waits."""

    code: str
    """group, dependency, executorsFull …"""
    message: str
    tasks: tuple[str, ...]
    """The names of the tasks that wait; empty when the whole run waits."""
    details: dict[str, object]


@dataclass(frozen=True, slots=True)
class Why:
    """Why a run waits; phase and result are empty when not known."""

    run: str
    phase: str
    result: str
    reasons: tuple[Reason, ...]
    omitted: int = 0
    """Number of further reasons."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list of runs."""

    runs: tuple[RunSummary, ...]
    next_start: int | None
    """The `start` of the next page; None on the last page."""
    cursor: str
    """Selects the next page of this list; empty on the last page."""


@dataclass(frozen=True, slots=True)
class Executor:
    """An executor, as it last described itself."""

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
    """How it isolates host tasks: `sandboxed`, `off`, or `missing: <why>`; empty if not known."""
    last_seen: datetime | None = None
    """When it last renewed its lease or appended a commit."""
    full: str = ""
    """Why its disk has no room for another task; empty when it has."""
    clock_skew: float = 0.0
    """Seconds by which its clock is ahead of the log server's."""


@dataclass(frozen=True, slots=True)
class Event:
    """A domain event."""

    type: str
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Commit:
    """The events that one decision appended to one aggregate."""

    id: str
    aggregate: str
    """Which one: `run/<id>`, `task/<id>`, `executor/<id>` or `runconfig/<hash>`."""
    version: int
    time: datetime
    actor: str
    cause: str
    events: tuple[Event, ...]
    position: str
    """Its own position: epoch/partition/sequence."""
    place: str
    """The position of the whole log behind it, where `tail` continues."""


@dataclass(frozen=True, slots=True)
class Service:
    """The service, as `/version` describes it."""

    service: str
    version: str
    namespace: str
    epoch: int
    partitions: int


@dataclass(frozen=True, slots=True)
class Stall:
    """A consumer of the log that makes no progress in one partition, or has parked commits."""

    component: str
    """`projection` or `archive`."""
    kind: str
    """`behind`: no progress; `parked`: some commits are set aside, the others are applied."""
    partition: int
    position: str
    """EPOCH/PARTITION/SEQUENCE of the first waiting commit."""
    since: datetime
    commits: int
    """Number of waiting commits."""
    why: str
    todo: str
    """A command that shows more, or helps."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a service is ready, and what keeps it from being so."""

    status: str
    """`ready` or `not ready`."""
    checks: dict[str, str]
    """Each dependency: `ok`, or what is wrong."""
    stalls: tuple[Stall, ...] = ()
    """Stalled consumers of the log, and parked commits; the service is ready all the same."""

    @property
    def ready(self) -> bool:
        """True when every check is `ok`."""
        return self.status == "ready"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run of resolved tasks."""

    group: str
    """Runs of one group run one at a time; its first two parts are the project, or the user."""
    name: str
    tasks: Mapping[str, Mapping[str, object]]
    """By an id of the caller's choice, which dependencies refer to."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """For all tasks."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    setup_errors: Sequence[str] = ()
    """With any, the run is created in phase setuperror, without tasks."""
    cache_group: str = ""
    """Runs of one cache group share caches. Empty: the project, or the user."""
    run_timeout_interval: int = 0
    """In nanoseconds; 0 for none."""
    concurrency: str | Mapping[str, object] = "queue"
    """queue, cancel_running, cancel_waiting or skip; or a map of `policy` and `max_waiting`."""
    priority: int = 0
    """-100 to 100; when executors are short, higher goes first."""
    fail_fast: bool = False
    """Whether the first failure keeps further tasks from starting."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A configuration file, and the variables and secrets that it is resolved with; file contents by file name."""

    config: str
    name: str = "config.yml"
    """config.yml, config.json, config.jsonnet or config.star: determines the format."""
    imports: Mapping[str, str] = field(default_factory=dict)
    """The files that jsonnet may import, by path."""
    variables: Mapping[str, str] = field(default_factory=dict)
    variable_files: Mapping[str, str] = field(default_factory=dict)
    """In YAML or JSON; a later file overrides an earlier one, `variables` override both."""
    secret_files: Mapping[str, str] = field(default_factory=dict, repr=False)
    path: str = ""
    """The path of the file, for messages."""


@dataclass(frozen=True, slots=True)
class Source:
    """The commit to run; at most one of branch, tag and ref is set."""

    branch: str = ""
    tag: str = ""
    ref: str = ""
    """The full ref, such as refs/pull/1/head."""
    commit_sha: str = ""
    repository_url: str = ""
    message: str = ""
    """The commit's message; with [ci skip] no runs are created."""


NO_SOURCE = Source()
"""For runs without sources."""
