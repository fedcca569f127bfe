"""The metrics of Runstream, all declared here.

`partition` is the partition's number as text; names on /metrics have `_` for `.`, their unit, and `_total`
for counters: `runstream_append_duration_seconds`, `runstream_append_commits_total`.

Counters and gauges are plain numbers that are read on demand through observable instruments: the SDK's own counter
costs 5 microseconds a call, a dict entry a tenth of that. The SDK records histograms itself, so they are for what
happens once a batch. Label values are positional, in the order declared, always text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.metrics import Histogram as SdkHistogram

Labels = tuple[str, ...]
_FAST = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class _Instrument:
    """The declaration of an instrument, in the list of all of this process."""

    declared: list[_Instrument] = []  # noqa: RUF012 - the one list of the process

    def __init__(self, name: str, description: str, labels: Labels = (), unit: str = "1") -> None:
        self.name = name
        self.description = description
        self.labels = labels
        self.unit = unit
        self.declared.append(self)

    def register(self, meter: Meter) -> None:
        """Let this meter report it."""
        raise NotImplementedError

    def attributes(self, values: Labels) -> dict[str, str]:
        """Return the labels with their values. Raises ValueError when there are too few or too many."""
        return dict(zip(self.labels, values, strict=True))


class _Numbers(_Instrument):
    """Plain numbers by label values."""

    def __init__(self, name: str, description: str, labels: Labels = (), unit: str = "1") -> None:
        super().__init__(name, description, labels, unit)
        self._values: dict[Labels, float] = {}

    def add(self, amount: float, *values: str) -> None:
        """Add to the number of these label values."""
        self._values[values] = self._values.get(values, 0) + amount

    def value(self, *values: str) -> float:
        """Return the number of these label values; 0 when there is none yet."""
        return self._values.get(values, 0)

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        # The copy is atomic: the reader may be another thread.
        return [Observation(number, self.attributes(values)) for values, number in self._values.copy().items()]


class Counter(_Numbers):
    """A number that only grows."""

    def register(self, meter: Meter) -> None:
        """Let this meter read it."""
        meter.create_observable_counter(self.name, [self._observe], self.unit, self.description)


class Gauge(_Numbers):
    """A number as it is now."""

    def set(self, number: float, *values: str) -> None:
        """Replace the number of these label values."""
        self._values[values] = number

    def forget(self, *values: str) -> None:
        """Stop reporting these label values, as when a partition moves to another process."""
        self._values.pop(values, None)

    def register(self, meter: Meter) -> None:
        """Let this meter read it."""
        meter.create_observable_gauge(self.name, [self._observe], self.unit, self.description)


class Histogram(_Instrument):
    """A distribution of durations. Each `record` costs about 6 microseconds once telemetry is set up."""

    def __init__(self, name: str, description: str, labels: Labels, buckets: Sequence[float]) -> None:
        super().__init__(name, description, labels, "s")
        self._buckets = tuple(buckets)
        self._attributes: dict[Labels, dict[str, str]] = {}
        self._sdk: list[SdkHistogram] = []

    def record(self, seconds: float, *values: str) -> None:
        """Record one duration, in seconds."""
        attributes = self._attributes.get(values)
        if attributes is None:
            attributes = self._attributes[values] = self.attributes(values)
        for histogram in self._sdk:
            histogram.record(seconds, attributes)

    def register(self, meter: Meter) -> None:
        """Record with this meter from now on, and no longer with an earlier one."""
        self._sdk[:] = [
            meter.create_histogram(
                self.name, self.unit, self.description, explicit_bucket_boundaries_advisory=self._buckets
            )
        ]


def register_all(meter: Meter) -> None:
    """Let this meter report every instrument declared so far."""
    for instrument in _Instrument.declared:
        instrument.register(meter)


APPEND_DURATION = Histogram(
    "runstream.append.duration",
    "From handing an append (one publish or one atomic batch) to the log to its acknowledgement",
    ("partition",),
    _FAST,
)
APPENDED_COMMITS = Counter("runstream.append.commits", "Commits that the log acknowledged", ("partition",))
APPEND_CONFLICTS = Counter(
    "runstream.append.conflicts", "Appends refused because another writer was first", ("partition",)
)
APPEND_RETRIES = Counter(
    "runstream.append.retries", "Appends sent again after a timeout or an unreachable server", ("partition",)
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
    "runstream.archive.commits",
    "Commits that are in the archive, and named by its data status",
    ("service", "partition"),
)
ARCHIVED_BYTES = Counter(
    "runstream.archive.bytes", "Bytes of segments and lists of them that were written into the archive", ("service",)
)
ARCHIVE_DURATION = Histogram(
    "runstream.archive.duration", "From closing segments to the data status that names them", ("service",), _FAST
)
ARCHIVE_LAG_COMMITS = Gauge(
    "runstream.archive.lag.commits", "Commits in the log that are not in the archive yet", ("service", "partition")
)
ARCHIVE_LAG_SECONDS = Gauge(
    "runstream.archive.lag",
    "How long ago the oldest commit that is not in the archive yet was stored",
    ("service", "partition"),
    unit="s",
)
ARCHIVE_STALLED_SECONDS = Gauge(
    "runstream.archive.stalled",
    "For how long the archive has stood still although commits wait; 0 while it moves",
    ("service", "partition"),
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
