"""The responses of the API: each type is sent by the gateway, described by OpenAPI and returned by the client.

Times are in UTC; a time is None until its event has happened. The client also understands an older service, so a field
that came later has a default, and a newer one, so a text with few values is no enumeration. A service sends every
field, and OpenAPI says so (`runstream.gateway.openapi`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from runstream.run_states import RunPhase, RunResult


def _one_of(*values: str) -> Meta:
    return Meta(extra_json_schema={"enum": sorted(values)})


class Answer(Struct, frozen=True, gc=False):
    """The base class of all responses of the API."""


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
    timedout: Annotated[str, _one_of("", "timeout", "no_output")] = ""
    """The limit of its own that it exceeded."""
    warnings: tuple[str, ...] = ()
    """Warnings of a successful step, such as patterns that selected nothing."""


class Attempt(Answer, frozen=True):
    """A failed attempt at a task, which another attempt followed."""

    attempt: int
    failure: Annotated[str, _one_of("failure", "lost", "timeout")]
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
    status: str
    """notstarted, skipped, cancelled, running, stopped, success or failed."""
    kept: bool
    """Whether a restart kept it: id, outcome, logs and archives are those of the earlier run."""
    timedout: bool
    failure: Annotated[str, _one_of("", "failure", "lost", "timeout")] = ""
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
    scope: Annotated[str, _one_of("all", "failed", "chosen")]
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
    cause_kind: Annotated[str, _one_of("commit", "request", "executor_lost", "timeout", "retention", "")] = ""
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

    area: Annotated[str, _one_of("source", "configuration", "environment", "outcome")]
    """source: annotations and the variables that name the commit. outcome: status, attempt, executor, exit statuses."""
    task: str
    """The name of a task; empty for the whole run."""
    path: tuple[str | int, ...]
    """Where the value is, such as `["steps", 0, "command"]`; empty for a whole task."""
    kind: Annotated[str, _one_of("changed", "added", "removed")]
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
    reason: Annotated[str, _one_of("when", "ci_skip")]
    """Its `when` does not match, or the commit message has [ci skip]."""


class ConfigWarning(Answer, frozen=True):
    """A warning about a configuration file."""

    path: str
    line: int | None
    """From 1; None in a file that a program generates."""
    message: str
    hint: str


class Count(Answer, frozen=True):
    """A number of runs, counted up to a bound."""

    count: int
    more: bool
    """True when counting stopped there: there may be more."""


class RunCounts(Answer, frozen=True):
    """The runs of a list by phase and by result, whatever phases and results the list is of."""

    phases: dict[str, Count]
    results: dict[str, Count]


class Page(Answer, frozen=True):
    """A page of runs."""

    runs: tuple[RunSummary, ...]
    """Up to the limit; a filter that finds little returns fewer, although there is a next page."""
    next_start: int | None
    """The `start` of the next page; None on the last page."""
    cursor: str
    """Requests the next page of this list; empty on the last page."""
    counts: RunCounts | None = None
    """None unless the request asks for them."""
    tasks: Mapping[str, Mapping[str, int]] | None = None
    """By the id of the run: how many tasks have each status; None unless the request asks for them."""


class QueuedRun(Answer, frozen=True):
    """An unfinished run of a group, and what is before it."""

    run: RunSummary
    waits_for: str
    """The id of the run that has to end first; empty for the first run of the group."""
    ahead: int
    """Number of unfinished runs before it."""


class RunTimes(Answer, frozen=True):
    """A finished run, and how long it waited and took, in seconds."""

    run: RunSummary
    waited: float | None
    took: float | None


class GroupView(Answer, frozen=True):
    """The queue of a group, and its last finished runs."""

    group: str
    queue: tuple[QueuedRun, ...]
    """The unfinished runs, in the order in which they run."""
    more: bool
    """Whether more wait behind those."""
    last: tuple[RunTimes, ...]
    """The last 30 finished runs, the latest first."""
    median_waited: float | None
    median_took: float | None
    """Of those, in seconds; None without one."""


class FlakyRun(Answer, frozen=True):
    """A run of a flaky task."""

    id: str
    counter: int
    group: str


class FlakyOccurrence(Answer, frozen=True):
    """A task that failed, and then passed with the same commit and run config."""

    commit: str
    """The hash of the commit; empty for a run without one."""
    run_config_id: str
    failed: FlakyRun
    passed: FlakyRun
    """The same run, if a later attempt passed."""
    failures: int
    """Failed attempts of the run that failed, without those whose executor was lost."""
    end_time: datetime | None
    """When the task of the run that failed ended."""


class FlakyTask(Answer, frozen=True):
    """A task that is flaky in the runs of a name."""

    group: str
    """The project or user: the first two elements of its runs' group."""
    name: str
    """Of the runs."""
    task: str
    count: int
    """How often, among the failures that were looked at."""
    latest: tuple[FlakyOccurrence, ...]
    """The last five."""


class FlakyList(Answer, frozen=True):
    """Flaky tasks, the most frequent first."""

    tasks: tuple[FlakyTask, ...]
    failures: int
    """Number of failed tasks that were looked at, the latest ones."""
    more: bool
    """Whether there may be earlier failures."""


class Executor(Answer, frozen=True, kw_only=True):
    """An executor, as it registered last."""

    executor_id: str
    state: Annotated[str, _one_of("ready", "suspect", "draining", "drained", "full", "offline", "lost", "deleted")]
    last_seen: datetime | None = None
    """When it last renewed its lease or appended to the log."""
    full: str = ""
    """Why its disk has no space for a task; empty if it has."""
    clock_skew: float = 0.0
    """How far its clock is ahead of the clock of NATS, in seconds."""
    archs: tuple[str, ...]
    labels: dict[str, str]
    allow_privileged_containers: bool
    allow_host: bool
    allow_pod: bool
    active_tasks_limit: int
    """0 for no limit."""
    active_tasks: int
    dynamic: bool = False
    executor_group: str = ""
    version: str
    sandbox: str = ""
    """How it isolates host tasks: `sandboxed`, `off`, or `missing: <why>`; empty if not known."""
    engine: str = ""
    """Its container engine, such as `docker 28.2.2`, or `unreachable: <why>`; empty without one."""


class ExecutorList(Answer, frozen=True):
    """All executors, by id."""

    executors: tuple[Executor, ...]


class Reason(Answer, frozen=True):
    """One reason why a run waits."""

    code: str
    """group, dependency, executorsFull …"""
    message: str
    tasks: tuple[str, ...]
    """Names of the tasks that it concerns; none when it concerns the whole run."""
    details: dict[str, Any]


class Why(Answer, frozen=True):
    """Why a run waits; phase and result are empty where they are unknown."""

    run: str
    phase: str
    result: str
    reasons: tuple[Reason, ...]
    omitted: int = 0
    """Number of further reasons."""


class Service(Answer, frozen=True):
    """The service's version and its log."""

    service: str
    version: str
    namespace: str
    epoch: int
    partitions: int


class ErrorEntry(Answer, frozen=True, kw_only=True):
    """One entry of an error's body."""

    code: str = ""
    details: Annotated[Any, Meta(extra_json_schema={"type": "object"})] = None
    message: str = ""
    hint: str = ""
    kind: str = ""
    chain: tuple[str, ...] = ()
    """Only with Runstream-Detailed-Errors: 1."""


class Part(Answer, frozen=True):
    """The state of one component."""

    doing: Annotated[str, Meta(extra_json_schema={"$ref": "#/components/schemas/Doing"})]
    """starting, running, draining, parked or stopping."""
    under_way: int = 0
    """Number of tasks or requests to finish before it is parked."""


class Instance(Answer, frozen=True):
    """One instance, as the API shows it."""

    id: str
    components: tuple[str, ...]
    host: str
    pid: int
    version: str
    state: str
    """running, requested, draining, parked, resumed or lost."""
    last_state: str
    """The state of its last record; of a lost instance, its state before."""
    since: datetime | None
    """Start of that state."""
    parked: bool
    """Whether it is parked for the current request, or was when it was lost."""
    epoch: int
    parts: dict[str, Part]
    positions: dict[int, int]


class ModeChange(Answer, frozen=True):
    """One change: maintenance enabled or disabled."""

    enabled: bool
    by: str
    why: str
    at: datetime


class Maintenance(Answer, frozen=True, rename={"requested": "RequestedStatus", "current": "CurrentStatus"}):
    """The maintenance of one service, as the API shows it."""

    requested: bool
    """Whether maintenance is requested."""
    current: bool
    """Whether the answering process is parked."""
    service: str
    parked: bool
    """Whether all instances that are not lost are parked."""
    by: str
    reason: str
    since: datetime | None
    deadline: datetime | None
    instances: tuple[Instance, ...]
    history: tuple[ModeChange, ...]
    """The last changes, oldest first."""
    tag: str = ""
    """Changes when anything but a position changes."""

    @property
    def resumed(self) -> bool:
        """True when maintenance is over and all processes that are not lost work."""
        return not self.requested and all(one.state in ("running", "lost") for one in self.instances)


class ImportReport(Answer, frozen=True):
    """The result of an import, or of its dry run; the first fields describe the snapshot."""

    dry: bool
    namespace: str
    epoch: int
    position: str
    created: str
    signer: str
    commits: int
    events: int
    runs: int
    partitions: int
    here_epoch: int
    """The epoch that is served after the import; for a dry run, the one that is served now."""
    here_partitions: int
    replaced_commits: int
    """Number of commits of the epoch that is no longer served."""
    objects: int
    objects_added: int
    """Number of objects that the storage did not have."""
    parked: int
    """Commits that could not be applied."""
    parked_in_source: int = 0
    """Commits that could not be applied where the snapshot was exported."""
    older: str = ""
    """A later snapshot of the same log that was imported or exported at the service; empty without one."""
    service: str = "runs"
    """The service whose log is replaced."""
    also: tuple[ImportReport, ...] = ()
    """The reports of the other services of the file, whose logs are replaced in the same step."""


class Stall(Answer, frozen=True):
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
    service: str = "runs"
    """The service of the log: `runs` or `config`."""

    @property
    def where(self) -> str:
        """The part of the log: a partition of runs, or the service `config`, which has one partition."""
        return f"partition {self.partition}" if self.service == "runs" else self.service

    def __str__(self) -> str:
        state = "has parked commits" if self.kind == "parked" else "stands still"
        since = f"{self.since:%Y-%m-%d %H:%M:%S}"
        return (
            f"the {self.component} of {self.where} {state} at {self.position} since {since} UTC "
            f"({self.commits} waiting): {self.why}"
        )


class LogLine(Answer, frozen=True):
    """A line of a log."""

    number: int
    """From 0."""
    offset: int
    """Where it begins in the log, in bytes."""
    time: datetime | None
    """When its first byte was written, by the clock of the executor; None if that is unknown."""
    text: str
    """Without its line end; bytes that are no UTF-8 are replaced."""
    cut: bool
    """True if the line is longer than 64 KiB, and its rest is missing here."""


class LogLines(Answer, frozen=True):
    """Successive lines of a log."""

    lines: tuple[LogLine, ...]
    next: int | None
    """Number of the line after them; None if the log has no further line now."""


class Failure(Answer, frozen=True):
    """A failed task."""

    task: str
    """Its name."""
    task_id: str
    attempt: int
    step: int | None
    """The failed step, or else the one that started last; None for the setup, or if nothing started."""
    step_name: str
    """`setup` for the setup; empty if nothing started."""
    exit_status: int | None
    fail_error: str
    """Why it failed, when the cause is not a step."""
    lines: tuple[LogLine, ...] | None
    """The last 50 lines of that step's log; None if there is no log."""


class Failures(Answer, frozen=True):
    """The failed tasks of a run."""

    failures: tuple[Failure, ...]
    """In the order of their names, at most 100."""
    more: bool
    """True if the run has further failed tasks."""


class Cache(Answer, frozen=True):
    """Files that tasks have kept under a key."""

    group: str
    """The project or user whose runs share it, such as `/project/web`, or a name."""
    key: str
    size: int
    """In bytes, as it is stored."""
    created: datetime


class CacheList(Answer, frozen=True):
    """Caches by group and key."""

    caches: tuple[Cache, ...]
    cursor: str
    """For the following ones; empty if there are none."""


class StoredKind(Answer, frozen=True):
    """The objects of one kind."""

    kind: str
    """`logs`, `indexes`, `archives`, `references`, `caches`, `log` (the archive of the log), `other`; or `runs`, which
    have ended."""
    objects: int
    bytes: int | None
    """None for runs."""
    next_removal: datetime | None
    """When retention removes the next one; None for never."""
    next_group: str
    """Of which project or user; empty for kinds without one."""


class StorageStatus(Answer, frozen=True):
    """What the object storage holds, and what retention removes next."""

    measured_at: datetime
    kinds: tuple[StoredKind, ...]


class ParkedCommitView(Answer, frozen=True):
    """A commit that could not be read or applied."""

    position: str
    """EPOCH/PARTITION/SEQUENCE."""
    subject: str
    aggregate: str
    reason: str
    at: datetime
    """When it was parked."""


class ParkedList(Answer, frozen=True):
    """Parked commits, in the order of the log."""

    parked: tuple[ParkedCommitView, ...]
    more: bool
    """Whether more follow behind the last one."""


class SkippedCommit(Answer, frozen=True):
    """A decision that a commit is never applied."""

    position: str
    """Of the decision."""
    subject: str
    skipped: str
    """The position that the commit had then."""
    aggregate_version: int
    by: str
    at: datetime
    reason: str
    sha256: str


class SkippedList(Answer, frozen=True):
    """All skipped commits, in the order of each partition."""

    skipped: tuple[SkippedCommit, ...]


class CommitBody(Answer, frozen=True):
    """The body of a commit: one of these."""

    json: Any
    text: str | None
    base64: str | None
    """If it is neither JSON nor text."""


class ParkedCommitDetail(Answer, frozen=True):
    """A commit that is parked or was skipped, as it is in the log."""

    position: str
    aggregate: str
    subject: str
    stored_at: datetime
    headers: dict[str, str]
    parked: ParkedCommitView | None
    """None when it is no longer parked."""
    behind: tuple[str, ...]
    """Positions of later commits of its aggregate, parked behind it."""
    skipped: SkippedCommit | None
    body: CommitBody


class RetriedCommits(Answer, frozen=True):
    """The number of parked commits that are tried again."""

    asked: int


class FsckProgress(Answer, frozen=True):
    """The progress of a check."""

    step: str
    done: int
    """Commits that are folded and compared."""
    total: int
    """0 when it is unknown."""


class FsckReport(Answer, frozen=True):
    """What a check of rows, archive and objects against the log has found."""

    commits: int
    rows: int
    count: int
    """Number of differences between the rows and the log."""
    differences: tuple[str, ...]
    """The first 1,000 of them."""
    archive: dict[str, Any] | None
    objects: dict[str, Any] | None
    """None where they were left out."""
    stalls: tuple[Stall, ...]


class FsckState(Answer, frozen=True):
    """A check that runs or has ended."""

    name: str
    begun: datetime
    progress: FsckProgress | None
    """None once it has ended."""
    result: FsckReport | None
    """None while it runs, and if it failed."""
    error: list[dict[str, Any]] | None


class HealthFinding(Answer, frozen=True):
    """What was found about one thing, and what to do about it."""

    what: str
    status: Annotated[str, _one_of("ok", "warning", "problem", "unknown")]
    found: str
    todo: str


class Health(Answer, frozen=True):
    """What a gateway knows about the servers behind it, as `runstream doctor` tells it."""

    at: datetime
    findings: tuple[HealthFinding, ...]


class Readiness(Answer, frozen=True):
    """Whether a service is ready, and if not, why."""

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


class UserView(Answer, frozen=True):
    """A user."""

    id: str
    username: str


class LinkedAccountView(Answer, frozen=True):
    """An account at a git host that is linked to a user."""

    id: str
    remote_source_id: str
    remote_user_name: str
    remote_user_avatar_url: str


class PrivateUserView(Answer, frozen=True):
    """A user, as that user and administrators see it."""

    id: str
    username: str
    tokens: tuple[str, ...]
    """Names, in order."""
    linked_accounts: tuple[LinkedAccountView, ...]
    admin: bool = False


class TokenView(Answer, frozen=True):
    """A new token, which is shown this once."""

    token: str


class TokenEntry(Answer, frozen=True):
    """A token of a user, without its text."""

    name: str
    scope: Annotated[str, _one_of("read", "run", "admin")]
    """What it allows of what the user may do."""
    expires_at: datetime | None
    created_at: datetime | None


class OrganizationView(Answer, frozen=True):
    """An organization."""

    id: str
    name: str
    visibility: Annotated[str, _one_of("public", "private")]


class MemberView(Answer, frozen=True):
    """A member of an organization."""

    user: UserView
    role: Annotated[str, _one_of("owner", "member")]


class MembersView(Answer, frozen=True):
    """Members of an organization."""

    organization: OrganizationView
    members: tuple[MemberView, ...]


class AddedMemberView(Answer, frozen=True):
    """A member that was added to an organization, or got another role."""

    organization: OrganizationView
    user: UserView
    role: Annotated[str, _one_of("owner", "member")]


class MembershipView(Answer, frozen=True, rename={"organization": "Organization", "role": "Role"}):
    """An organization of a user, and the user's role there."""

    organization: OrganizationView
    role: str


class InvitationView(Answer, frozen=True):
    """An invitation of a user to an organization."""

    id: str
    user_ref: str
    """The id of the user."""
    organization_id: str
    organization_name: str


class ProjectGroupView(Answer, frozen=True):
    """A project group."""

    id: str
    name: str
    """Empty for the root group of a user or an organization."""
    path: str
    parent_path: str
    visibility: Annotated[str, _one_of("public", "private")]
    global_visibility: Annotated[str, _one_of("public", "private")]
    """`private` also below something private."""


class ProjectView(Answer, frozen=True, omit_defaults=True):
    """A project. Fields that are false or empty are left out."""

    id: str = ""
    name: str = ""
    path: str = ""
    parent_path: str = ""
    visibility: str = ""
    global_visibility: str = ""
    """`private` also below something private."""
    pass_vars_to_forked_pr: bool = False
    default_branch: str = ""
    members_can_perform_run_actions: bool = False
    repository_url: str = ""
    """Of a project with the URL of a git repository."""


class SecretView(Answer, frozen=True):
    """A secret, without its texts."""

    id: str
    name: str
    parent_path: str


class PatternView(Answer, frozen=True):
    """A name, or an RE2 expression."""

    type: Annotated[str, _one_of("simple", "regexp")]
    match: str


class ConditionsView(Answer, frozen=True, omit_defaults=True):
    """Patterns of included names, and of names excluded from these."""

    include: tuple[PatternView, ...] = ()
    exclude: tuple[PatternView, ...] = ()


class WhenView(Answer, frozen=True, omit_defaults=True):
    """For which branches, tags and refs a value is meant."""

    branch: ConditionsView | None = None
    tag: ConditionsView | None = None
    ref: ConditionsView | None = None


class VariableValueView(Answer, frozen=True):
    """A value of a variable: a key of a secret."""

    secret_name: str
    secret_var: str
    matching_secret_parent_path: str
    """Where the secret is that the value has here; empty without one."""
    when: WhenView | None


class VariableView(Answer, frozen=True):
    """A variable."""

    id: str
    name: str
    parent_path: str
    values: tuple[VariableValueView, ...]


class RemoteSourceView(Answer, frozen=True):
    """A git host."""

    id: str
    name: str
    auth_type: Annotated[str, _one_of("password", "oauth2")]
    registration_enabled: bool
    login_enabled: bool


class SessionView(Answer, frozen=True):
    """A login with cookies."""

    id: str
    created_at: datetime
    expires_at: datetime
    user_agent: str
    current: bool
    """Whether it is the session of the request."""


class LoginLink(Answer, frozen=True):
    """A link that logs a user in once."""

    url: str
    expires_at: datetime


class AuditedEvent(Answer, frozen=True):
    """An event of a change."""

    type: str
    fields: dict[str, str | bool]
    """Those that say what changed; secrets are never among them."""


class AuditEntry(Answer, frozen=True):
    """A change of a user, organization, project group, project, secret, variable or remote source."""

    position: str
    time: datetime
    actor: str
    """The author: `user:NAME`, or `admin` for the administrator's token."""
    kind: str
    id: str
    name: str
    """Its last name."""
    path: str
    """Its last path; of a secret or a variable, of the project or group that has it."""
    events: tuple[AuditedEvent, ...]


class LoginView(Answer, frozen=True):
    """A login; after POST, its cookies are in the headers."""

    user: UserView | None
    """None for the holder of the admin token."""
    admin: bool = False
    """Whether the sender administers the deployment."""
    scope: Annotated[str, _one_of("read", "run", "admin")] = "admin"
    """What the token allows with which the user logged in."""


class OwnedRunSummary(Answer, frozen=True):
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


class OwnedTaskSummary(Answer, frozen=True):
    """A task of a run, without its steps."""

    id: str
    name: str
    status: str
    timedout: bool
    level: int
    depends: dict[str, Depend]
    waiting_approval: bool
    approved: bool
    approval_annotations: dict[str, str] | None
    start_time: datetime | None
    end_time: datetime | None
    task_timeout_interval: int
    """Nanoseconds; 0 for none."""


class OwnedRun(Answer, frozen=True):
    """A run of a project or user."""

    number: int
    name: str
    annotations: dict[str, str]
    phase: str
    result: str
    setup_errors: tuple[str, ...] | None
    stopping: bool
    tasks: dict[str, OwnedTaskSummary]
    tasks_waiting_approval: tuple[str, ...]
    enqueue_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    can_restart_from_scratch: bool
    can_restart_from_failed_tasks: bool


class OwnedContainer(Answer, frozen=True):
    """A container of a task."""

    image: str


class OwnedSetupStep(Answer, frozen=True):
    """The setup of a task."""

    phase: str
    name: str
    start_time: datetime | None
    end_time: datetime | None


class OwnedStep(Answer, frozen=True):
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


class OwnedTask(Answer, frozen=True):
    """A task of a run, with its steps."""

    id: str
    name: str
    status: str
    timedout: bool
    containers: tuple[OwnedContainer, ...]
    waiting_approval: bool
    approved: bool
    approval_annotations: dict[str, str] | None
    setup_step: OwnedSetupStep
    steps: tuple[OwnedStep, ...]
    start_time: datetime | None
    end_time: datetime | None
    task_timeout_interval: int
