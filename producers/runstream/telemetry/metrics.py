"""Which metrics exist. Everything that Runstream measures is declared here, and nowhere else.

`partition` is the partition's number as text; names on /metrics have `_` for `.`, their unit, and `_total`
for counters: `runstream_append_duration_seconds`, `runstream_append_commits_total`.
"""

from __future__ import annotations

from runstream.telemetry.instruments import Counter, Gauge, Histogram

_FAST = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

APPEND_DURATION = Histogram(
    "runstream.append.duration",
    "From handing an append (one publish or one atomic batch) to the log to its acknowledgement",
    ("partition",),
    _FAST,
)
APPENDED_COMMITS = Counter("runstream.append.commits", "Commits that the log acknowledged", ("partition",))
APPEND_CONFLICTS = Counter(
    "runstream.append.conflicts", "Appends refused because somebody else was first", ("partition",)
)
APPEND_RETRIES = Counter(
    "runstream.append.retries", "Appends sent again after a time-out or an unreachable server", ("partition",)
)

PROJECTED_COMMITS = Counter(
    "runstream.projection.commits", "Commits applied to the projection", ("projection", "partition")
)
PROJECTION_DURATION = Histogram(
    "runstream.projection.duration", "One batch's transaction", ("projection", "partition"), _FAST
)
PROJECTION_LAG_COMMITS = Gauge(
    "runstream.projection.lag.commits", "Commits in the log that are not projected yet", ("projection", "partition")
)
PROJECTION_LAG_SECONDS = Gauge(
    "runstream.projection.lag",
    "How long ago the oldest commit that is not projected yet was stored",
    ("projection", "partition"),
    unit="s",
)
PARKED_COMMITS = Gauge("runstream.parked.commits", "Commits that wait for a fix", ("projection", "partition"))
PROJECTION_STALLED_SECONDS = Gauge(
    "runstream.projection.stalled",
    "For how long the projection has stood still although commits wait; 0 while it moves",
    ("projection", "partition"),
    unit="s",
)
PARKED_SECONDS = Gauge(
    "runstream.parked",
    "For how long the first parked commit has waited for a fix",
    ("projection", "partition"),
    unit="s",
)

ARCHIVED_COMMITS = Counter(
    "runstream.archive.commits", "Commits that are in the archive, and named by its data status", ("partition",)
)
ARCHIVED_BYTES = Counter(
    "runstream.archive.bytes", "Bytes of segments and lists of them that were written into the archive"
)
ARCHIVE_DURATION = Histogram(
    "runstream.archive.duration", "From closing segments to the data status that names them", (), _FAST
)
ARCHIVE_LAG_COMMITS = Gauge(
    "runstream.archive.lag.commits", "Commits in the log that are not in the archive yet", ("partition",)
)
ARCHIVE_LAG_SECONDS = Gauge(
    "runstream.archive.lag",
    "How long ago the oldest commit that is not in the archive yet was stored",
    ("partition",),
    unit="s",
)
ARCHIVE_STALLED_SECONDS = Gauge(
    "runstream.archive.stalled",
    "For how long the archive has stood still although commits wait; 0 while it moves",
    ("partition",),
    unit="s",
)

DECIDED_RUNS = Counter("runstream.runs.decided", "Decisions taken about runs", ("partition",))
STARTED_RUNS = Counter("runstream.runs.started", "Runs that began to run", ("partition",))
FINISHED_RUNS = Counter("runstream.runs.finished", "Runs that ended, by result", ("partition", "result"))
OWNED_PARTITIONS = Gauge("runstream.partitions.owned", "Partitions that this process schedules")

CLOCK_SKEW = Gauge(
    "runstream.executor.clock.skew", "Seconds by which an executor's clock is ahead of the log's", ("executor",)
)

RUNNING_TASKS = Gauge("runstream.tasks.running", "Tasks that run on this executor now", ("executor",))
FINISHED_TASKS = Counter("runstream.tasks.finished", "Tasks that ended on this executor", ("executor", "phase"))

HTTP_REQUESTS = Counter("runstream.http.requests", "Requests answered", ("method", "route", "status"))
HTTP_DURATION = Histogram(
    "runstream.http.duration", "From a request's first byte to the end of its answer's headers", ("route",), _FAST
)
