"""The service: maintenance, imports, readiness, parked commits, checks, and what is stored."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

from runstream.api.answer import Answer, one_of


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
    due: int = 0
    """Number that retention would remove now: runs, runs whose logs or archives go, or caches."""


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
    status: Annotated[str, one_of("ok", "warning", "problem", "unknown")]
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
