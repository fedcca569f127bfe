"""Verification: is a snapshot whole, unchanged and consistent? Needs no server.

Checks hashes, chain, signature and counts; decodes and upcasts every event; checks that the versions of each aggregate
run from 1 without a gap, and that each run's config and each executor task's run stand in the log before it. Reports
every problem with its place.

Processes share the segments. What concerns more than one segment (versions and references) comes back as small records
in temporary files, bucketed by a hash of the aggregate and sorted one part at a time: memory is bounded whatever the
size of the snapshot.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import struct
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from heapq import nsmallest
from itertools import count
from pathlib import Path
from typing import Literal

from runstream.codec import decode, decode_with_types
from runstream.commits import DecodedCommit
from runstream.counting import counted
from runstream.errors import BadRequestError, InternalError
from runstream.events.executor_task import ExecutorTaskAssigned
from runstream.events.run import RunCreated
from runstream.garbage import collect_seldom
from runstream.log.port import RawMessage
from runstream.skips import Skips
from runstream.snapshots.container import TarEntry, content
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.manifest import MANIFEST, Manifest, SnapshotHeader, parked_from
from runstream.snapshots.objects import object_chunks, objects
from runstream.snapshots.reading import Snapshot, open_snapshot
from runstream.snapshots.segments import MAX_SEGMENT_FILE_BYTES, SegmentDescription, read_segment, types_of
from runstream.subjects import Subjects, aggregate_of, group_root, partition_of

BUCKETS = 64
_RECORD = struct.Struct(">16sQq")
_SIZE = _RECORD.size
_PARTITION_SHIFT = 56
_IN_MEMORY_BYTES = 64 << 10
"""Bytes of a bucket kept in memory before it becomes a file."""
_SORTED_BYTES = 4 << 20
"""Bytes of records sorted at once; sorting takes about five times as much memory."""
_REFERENCE, _UNREADABLE, _SKIPPED = 0, -1, -2
"""Markers in place of a version; a skipped commit stores `_SKIPPED` less the version after it."""


@dataclass(frozen=True, slots=True)
class AggregateFinding:
    """A fault in an aggregate's history, at the commit where it shows."""

    partition: int
    sequence: int
    kind: Literal["version", "reference"]
    version: int = 0
    """The version that the commit should have."""


@dataclass(slots=True)
class SegmentRecords:
    """The records of one segment's commits, by bucket."""

    partition: int
    buckets: list[bytearray] = field(default_factory=lambda: [bytearray() for _ in range(BUCKETS)])
    _keys: dict[str, bytes] = field(default_factory=dict)
    """Hashes of the aggregates of this segment, by name."""

    def commit(self, commit: DecodedCommit, sequence: int) -> None:
        """Add a commit that decodes, and its references."""
        self._add(commit.address.aggregate, sequence, commit.version)
        for event in commit.events:
            match event:
                case RunCreated(run_config=config):
                    self._add(f"runconfig/{config}", sequence, _REFERENCE)
                case ExecutorTaskAssigned(run_id=run, run_config=config):
                    self._add(f"run/{run}", sequence, _REFERENCE)
                    self._add(f"runconfig/{config}", sequence, _REFERENCE)

    def skipped(self, message: RawMessage, version: int) -> None:
        """Add a skipped commit: it sets its aggregate's version and nothing else."""
        self._add(aggregate_of(message.subject), message.position.sequence, _SKIPPED - version)

    def unreadable(self, message: RawMessage) -> None:
        """Add a commit that does not decode: the rest of its aggregate is not checked."""
        self._add(aggregate_of(message.subject), message.position.sequence, _UNREADABLE)

    def _add(self, aggregate: str, sequence: int, version: int) -> None:
        key = self._keys.get(aggregate)
        if key is None:
            name = f"{self.partition}/{aggregate}".encode("utf-8", "surrogatepass")
            key = hashlib.blake2b(name, digest_size=16).digest()
            self._keys[aggregate] = key
        place = self.partition << _PARTITION_SHIFT | sequence
        self.buckets[key[0] % BUCKETS] += _RECORD.pack(key, place, min(version, 1 << 62))


@contextlib.contextmanager
def bucket_files() -> Iterator[list[tempfile.SpooledTemporaryFile[bytes]]]:
    """Open a temporary file for each bucket; the files start in memory."""
    with ExitStack() as stack:
        yield [stack.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)) for _ in range(BUCKETS)]


def _findings(files: Sequence[tempfile.SpooledTemporaryFile[bytes]]) -> Iterator[AggregateFinding]:
    """Yield every fault of the aggregates whose records are in these files, aggregate by aggregate."""
    for file in files:
        parts = file.tell() // _SORTED_BYTES + 1
        for part in range(parts):
            file.seek(0)
            yield from _check_versions(_records(file, part, parts))


def _records(file: tempfile.SpooledTemporaryFile[bytes], part: int, parts: int) -> list[bytes]:
    """Return the records of one part of a bucket's aggregates, sorted by aggregate and position."""
    found: list[bytes] = []
    while chunk := file.read(_SIZE << 15):
        records = (chunk[at : at + _SIZE] for at in range(0, len(chunk), _SIZE))
        found += records if parts == 1 else (r for r in records if (r[1] << 8 | r[2]) % parts == part)
    found.sort()
    return found


def _check_versions(records: list[bytes]) -> Iterator[AggregateFinding]:
    """Yield the faults of aggregates whose records are sorted."""
    current, version_before, begun, silent = b"", 0, False, False
    for key, place, version in _RECORD.iter_unpack(b"".join(records)):
        if key != current:
            current, version_before, begun, silent = key, 0, False, False
        if silent:
            continue
        if version == _UNREADABLE:
            silent = True
        elif version <= _SKIPPED:
            version_before = _SKIPPED - version
        elif version == _REFERENCE:
            if not begun:
                yield AggregateFinding(*_unpacked(place), "reference")
        else:
            if version != version_before + 1:
                yield AggregateFinding(*_unpacked(place), "version", version_before + 1)
            version_before, begun = version, True


def _unpacked(place: int) -> tuple[int, int]:
    return place >> _PARTITION_SHIFT, place & ((1 << _PARTITION_SHIFT) - 1)


MAX_SEGMENT_PROBLEMS = 20
"""Problems reported for one segment; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class SnapshotProblem:
    """A problem in a snapshot, with its place."""

    part: str
    line: int
    """Counted from 1; 0 for the whole part."""
    aggregate: str
    """Empty when the problem concerns no single aggregate."""
    what: str

    @classmethod
    def of(cls, error: SnapshotError) -> SnapshotProblem:
        """Return the problem that an error describes."""
        return cls(error.part, error.line, error.aggregate, error.problem)

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line else ""
        return f"{self.part}{line}: {f'{self.aggregate}: ' if self.aggregate else ''}{self.what}"


@dataclass(frozen=True, slots=True)
class SegmentToCheck:
    """A segment to check, with what a check needs to know of its snapshot."""

    path: Path
    entry: TarEntry
    description: SegmentDescription
    subjects: Subjects
    partitions: int
    skips: Skips = field(default_factory=Skips)
    """The skip decisions of the snapshot."""
    parked: Mapping[str, int] = field(default_factory=dict)
    """The first parked sequence of each aggregate of the partition, as of the export."""


@dataclass(slots=True)
class CheckedSegment:
    """The result of checking one segment."""

    commits: int = 0
    skipped: int = 0
    parked: int = 0
    named: int = 0
    """Number of parked commits that the manifest names."""
    problems: list[SnapshotProblem] = field(default_factory=list)
    problem_count: int = 0
    records: list[bytearray] = field(default_factory=list)

    def add(self, problem: SnapshotProblem) -> None:
        """Add a problem; list it while there is room."""
        self.problem_count += 1
        if len(self.problems) < MAX_SEGMENT_PROBLEMS:
            self.problems.append(problem)


_partition_of = lru_cache(maxsize=4096)(partition_of)


def check_segment(asked: SegmentToCheck) -> CheckedSegment:
    """Check one segment; return its problems instead of raising them."""
    checked = CheckedSegment()
    try:
        with asked.path.open("rb") as file:
            data = content(file, asked.entry, MAX_SEGMENT_FILE_BYTES)
        _check_commits(asked, data, checked)
    except SnapshotError as error:
        checked.add(SnapshotProblem.of(error))
    return checked


def _check_commits(asked: SegmentToCheck, data: bytes, checked: CheckedSegment) -> None:
    description = asked.description
    records = SegmentRecords(description.partition)
    checked.records = records.buckets
    types: list[str] = []
    unreadable = 0
    for message in read_segment(description, data, asked.subjects):
        checked.commits += 1
        if asked.parked and _was_parked(asked, message, checked):
            records.unreadable(message)
            found = types_of(message)
        elif (skipped := asked.skips.find(message)) is not None:
            checked.skipped += 1
            records.skipped(message, skipped.commit.version)
            found = types_of(message)
        else:
            found = _types_of_commit(asked, message, records, checked)
        if found is None:
            unreadable += 1
        else:
            types += found
    counts = dict(Counter(types))
    if (counts, unreadable) != (description.events, description.unreadable):
        checked.add(SnapshotProblem(description.name, 0, "", _difference(counts, description.events)))


def _was_parked(asked: SegmentToCheck, message: RawMessage, checked: CheckedSegment) -> bool:
    """Return whether the source had parked the commit; check only its partition then."""
    sequence = message.position.sequence
    first = asked.parked.get(aggregate_of(message.subject))
    if first is None or sequence < first:
        return False
    checked.parked += 1
    checked.named += sequence == first
    with contextlib.suppress(BadRequestError):  # unreadable is a reason to be parked
        commit = decode(message).commit
        for what in _misplaced(commit, asked.partitions):
            checked.add(_problem(asked, message, commit.address.aggregate, what))
    return True


def _types_of_commit(
    asked: SegmentToCheck, message: RawMessage, records: SegmentRecords, checked: CheckedSegment
) -> list[str] | None:
    """Check a commit and return the types of its events; None when its body is not JSON."""
    try:
        stored, types = decode_with_types(message)
    except BadRequestError as error:
        records.unreadable(message)
        checked.add(_problem(asked, message, "", f"it cannot be read: {error.message}"))
        return types_of(message)
    commit = stored.commit
    records.commit(commit, message.position.sequence)
    for what in _misplaced(commit, asked.partitions):
        checked.add(_problem(asked, message, commit.address.aggregate, what))
    return types


def _misplaced(commit: DecodedCommit, partitions: int) -> list[str]:
    """Return a problem for each event that belongs to another partition."""
    for event in commit.events:
        if isinstance(event, RunCreated):
            try:
                expected = _partition_of(group_root(event.group), partitions)
            except BadRequestError as error:
                return [error.message]
            if expected != commit.address.partition:
                return [f"its group {event.group[:100]!r} belongs on partition {expected}"]
    return []


def _problem(asked: SegmentToCheck, message: RawMessage, aggregate: str, what: str) -> SnapshotProblem:
    line = message.position.sequence - asked.description.first + 1
    return SnapshotProblem(asked.description.name, line, aggregate, what)


def _difference(found: dict[str, int], listed: dict[str, int]) -> str:
    kinds = [kind for kind in sorted({*found, *listed}) if found.get(kind, 0) != listed.get(kind, 0)]
    if not kinds:
        return "the number of unreadable commits differs from the manifest"
    kind = kinds[0]
    return f"it has {counted(found.get(kind, 0), 'event')} of type {kind}, and the manifest says {listed.get(kind, 0)}"


MAX_PROBLEMS = 100
"""Problems reported; further ones are only counted."""
PARALLEL_BYTES = 48 << 20
"""Bytes of lines from which worker processes pay off: starting one takes half a second."""
_MAX_PROCESSES = 4

OnChecked = Callable[[int, int], None]
"""Called with the number of commits checked, and their total."""


@dataclass(slots=True)
class VerifyReport:
    """The result of verifying a snapshot."""

    header: SnapshotHeader | None = None
    """None when the file cannot be opened as a snapshot."""
    manifest: Manifest | None = None
    signer: str = ""
    """Fingerprint of the signing key; empty when the snapshot is not signed."""
    commits: int = 0
    """Commits checked."""
    skipped: int = 0
    """Number of them that are skipped."""
    parked: int = 0
    """Number of them that were parked in the source."""
    problems: list[SnapshotProblem] = field(default_factory=list)
    """Problems of segments in the order of the log, then all others."""
    problem_count: int = 0
    also: list[VerifyReport] = field(default_factory=list)
    """Reports of the logs of further services in the file; their problems are in this one."""

    @property
    def all(self) -> tuple[VerifyReport, ...]:
        """This report and those of further services."""
        return (self, *self.also)

    @property
    def good(self) -> bool:
        """True when there is no problem."""
        return self.problem_count == 0

    def add(self, problem: SnapshotProblem) -> None:
        """Add a problem; list it while there is room."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def require_good(self) -> None:
        """Raise SnapshotError with the first problem in its message, if there is one."""
        if self.good:
            return
        first = self.problems[0]
        more = f" (and {counted(self.problem_count - 1, 'more problem')})" if self.problem_count > 1 else ""
        raise SnapshotError(
            first.part,
            first.what + more,
            line=first.line,
            aggregate=first.aggregate,
            details={"problems": [str(problem) for problem in self.problems]},
        )


def verify(
    path: Path,
    *,
    public_key: str = "",
    processes: int | None = None,
    tell: OnChecked = lambda _done, _total: None,
) -> VerifyReport:
    """Check a whole snapshot, in at most `processes` processes (None: one for each CPU when the snapshot is large).

    Problems of the snapshot are in the report. Raises BadRequestError for a file that cannot be read at all.
    """
    report = VerifyReport()
    try:
        with open_snapshot(path, public_key=public_key) as snapshot:
            report.also = [VerifyReport() for _ in snapshot.also]
            total = sum(one.manifest.commits for one in snapshot.all)

            def checked() -> None:
                tell(sum(one.commits for one in report.all), total)

            for one, found in zip(snapshot.all, report.all, strict=True):
                found.header, found.manifest, found.signer = one.header, one.manifest, one.signer
                _check(one, found, _processes(one, processes), checked)
            for one, found in zip(snapshot.also, report.also, strict=True):
                for problem in found.problems:
                    report.add(replace(problem, part=one.folder + problem.part))
                report.problem_count += found.problem_count - len(found.problems)
    except SnapshotError as error:
        report.add(SnapshotProblem.of(error))
    return report


def _processes(snapshot: Snapshot, asked: int | None) -> int:
    if asked is not None:
        return asked
    small = sum(segment.bytes for segment in snapshot.manifest.segments) < PARALLEL_BYTES
    return 1 if small else min(len(os.sched_getaffinity(0)), _MAX_PROCESSES)


def _check(snapshot: Snapshot, report: VerifyReport, processes: int, tell: Callable[[], None]) -> None:
    with bucket_files() as files:
        segments, named = _to_check(snapshot), 0
        for checked in map(check_segment, segments) if processes == 1 else _shared(segments, processes):
            report.commits += checked.commits
            report.skipped += checked.skipped
            report.parked += checked.parked
            named += checked.named
            for problem in checked.problems:
                report.add(problem)
            report.problem_count += checked.problem_count - len(checked.problems)
            for file, records in zip(files, checked.records, strict=bool(checked.records)):
                file.write(records)
            tell()
        _add_findings(snapshot, report, _findings(files))
    report.problems.sort(key=lambda problem: (problem.part, problem.line))
    if named != len(snapshot.manifest.parked):
        report.add(SnapshotProblem(MANIFEST, 0, "", "of the parked commits that it names, some are not there"))
    for problem in check_objects(snapshot):
        report.add(problem)


def _to_check(snapshot: Snapshot) -> Iterator[SegmentToCheck]:
    header, skips = snapshot.header, snapshot.skips()
    parked = [parked_from(snapshot.manifest, header.subjects, partition) for partition in range(header.partitions)]
    for found in snapshot.manifest.segments:
        place = snapshot.places[found.name]
        yield SegmentToCheck(
            snapshot.path, place, found, header.subjects, header.partitions, skips, parked[found.partition]
        )


def _shared(segments: Iterator[SegmentToCheck], processes: int) -> Iterator[CheckedSegment]:
    """Yield segments as worker processes finish them; few are submitted ahead, so that results never pile up."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=collect_seldom) as pool:
        running: set[Future[CheckedSegment]] = set()
        try:
            for segment in segments:
                running.add(pool.submit(check_segment, segment))
                if len(running) > 2 * processes:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool as error:
            raise InternalError(
                "a worker process that checked segments died",
                code="verifyFailed",
                hint="it may have run out of memory: see the kernel log",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _add_findings(snapshot: Snapshot, report: VerifyReport, findings: Iterator[AggregateFinding]) -> None:
    """Report the first findings in the order of the log; count the others without looking them up.

    Findings come in the order of hashes, so all of them are read before the first ones are known.
    """
    number = count()
    counted_findings = (finding for finding, _ in zip(findings, number, strict=False))
    first = nsmallest(MAX_PROBLEMS, counted_findings, key=lambda finding: (finding.partition, finding.sequence))
    for finding in first:
        segments = snapshot.segments(finding.partition)
        segment = segments[bisect_right(segments, finding.sequence, key=lambda each: each.first) - 1]
        try:
            aggregate, what = _described(snapshot, finding)
        except BadRequestError as error:
            aggregate, what = "", error.message
        report.add(SnapshotProblem(segment.name, finding.sequence - segment.first + 1, aggregate, what))
    report.problem_count += next(number) - len(first)


def _described(snapshot: Snapshot, finding: AggregateFinding) -> tuple[str, str]:
    """Return the aggregate of a finding, and what is wrong."""
    message = snapshot.message(finding.partition, finding.sequence)
    if message is None:
        return "", "its commit is missing"
    if finding.kind == "reference":
        return aggregate_of(message.subject), "it refers to a run or run config that is not before it"
    what = f"version {decode(message).commit.version} comes where version {finding.version} is next"
    return aggregate_of(message.subject), what


def check_objects(snapshot: Snapshot) -> Iterator[SnapshotProblem]:
    """Yield the problems of a snapshot's objects."""
    try:
        for found in objects(snapshot):
            try:
                for _ in object_chunks(snapshot, found):
                    pass
            except SnapshotError as error:
                yield SnapshotProblem.of(error)
    except SnapshotError as error:
        yield SnapshotProblem.of(error)
