"""Is a snapshot whole, unchanged, and does it make sense? Everything is looked at, without any server.

Hashes, chain, signature and counts; every event decoded and upcast; every aggregate's versions from 1 without a gap;
every run's configuration and every executor task's run in the log before it. All that is wrong is told with its place.
Segments are shared out among processes; memory is bounded whatever the size.
"""

from __future__ import annotations

import multiprocessing
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import count
from pathlib import Path

from runstream.codec import decode
from runstream.counting import counted
from runstream.errors import BadRequestError, InternalError
from runstream.garbage import collect_seldom
from runstream.snapshots.aggregates import Aggregates, Finding
from runstream.snapshots.checking import Checked, Problem, SegmentToCheck, check_segment
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.manifest import MANIFEST, Manifest, SnapshotHeader, parked_from
from runstream.snapshots.object_files import check_objects
from runstream.snapshots.reading import Snapshot, open_snapshot
from runstream.snapshots.segments import SegmentDescription
from runstream.subjects import aggregate_of

MAX_PROBLEMS = 100
"""That are told; the others are counted."""
PARALLEL_BYTES = 48 << 20
"""Lines from which on other processes help: starting one takes half a second."""
_MAX_PROCESSES = 4

Tell = Callable[[int, int], None]
"""Told how many commits were checked, and of how many."""


@dataclass(slots=True)
class Report:
    """What was found."""

    header: SnapshotHeader | None = None
    """None when the file could not even be opened as a snapshot."""
    manifest: Manifest | None = None
    signer: str = ""
    """The fingerprint of the key that signed it; empty when it is not signed."""
    commits: int = 0
    """That were checked."""
    skipped: int = 0
    """How many of them were decided never to be applied."""
    parked: int = 0
    """How many of them were parked in the source."""
    problems: list[Problem] = field(default_factory=list)
    """Those of segments in the order of the log, then all others."""
    problem_count: int = 0

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem_count == 0

    def add(self, problem: Problem) -> None:
        """Take note of a problem."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def require_good(self) -> None:
        """Raise SnapshotError, with the first problem in its message, unless nothing is wrong."""
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


def verify(path: Path, *, public_key: str = "", processes: int | None = None, tell: Tell | None = None) -> Report:
    """Check a whole snapshot. `processes` None takes one for each processor when the snapshot is large.

    What is wrong with the snapshot is in the report; raises BadRequestError for a file that cannot be read at all.
    """
    report = Report()
    try:
        with open_snapshot(path, public_key=public_key) as snapshot:
            report.header, report.manifest, report.signer = snapshot.header, snapshot.manifest, snapshot.signer
            _check(snapshot, report, _processes(snapshot, processes), tell or _silent)
    except SnapshotError as error:
        report.add(Problem.of(error))
    return report


def _silent(_done: int, _total: int) -> None:
    return


def _processes(snapshot: Snapshot, asked: int | None) -> int:
    if asked is not None:
        return asked
    small = sum(segment.bytes for segment in snapshot.manifest.segments) < PARALLEL_BYTES
    return 1 if small else min(len(os.sched_getaffinity(0)), _MAX_PROCESSES)


def _check(snapshot: Snapshot, report: Report, processes: int, tell: Tell) -> None:
    with Aggregates() as aggregates:
        segments, named = _to_check(snapshot), 0
        for checked in map(check_segment, segments) if processes == 1 else _shared(segments, processes):
            report.commits += checked.commits
            report.skipped += checked.skipped
            report.parked += checked.parked
            named += checked.named
            _merge(report, checked, aggregates)
            tell(report.commits, snapshot.manifest.commits)
        _add_findings(snapshot, report, aggregates.findings())
    report.problems.sort(key=lambda problem: (problem.part, problem.line))
    if named != len(snapshot.manifest.parked):
        report.add(Problem(MANIFEST, 0, "", "of the parked commits that it names, some are not there"))
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


def _merge(report: Report, checked: Checked, aggregates: Aggregates) -> None:
    for problem in checked.problems:
        report.add(problem)
    report.problem_count += checked.problem_count - len(checked.problems)
    if checked.records:
        aggregates.add(checked.records)


def _shared(segments: Iterator[SegmentToCheck], processes: int) -> Iterator[Checked]:
    """The segments as they are done, a few at a time, so that results never pile up."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=collect_seldom) as pool:
        running: set[Future[Checked]] = set()
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
                "a process that was checking segments has died",
                code="verifyFailed",
                hint="was there too little memory?",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _add_findings(snapshot: Snapshot, report: Report, findings: Iterator[Finding]) -> None:
    """Say which commits these are about: of the first ones in the log, since only as many are looked up as are told.

    They come in the order of hashes, which says nothing to anybody.
    """
    number = count()
    first = nsmallest(MAX_PROBLEMS, (finding for finding, _ in zip(findings, number, strict=False)), key=_place)
    for finding in first:
        _add_finding(snapshot, report, finding)
    report.problem_count += next(number) - len(first)


def _place(finding: Finding) -> tuple[int, int]:
    return finding.partition, finding.sequence


def _add_finding(snapshot: Snapshot, report: Report, finding: Finding) -> None:
    segment = _segment_of(snapshot, finding)
    line = finding.sequence - segment.first + 1
    try:
        report.add(_described(snapshot, segment, finding, line))
    except BadRequestError as error:
        report.add(Problem(segment.name, line, "", error.message))


def _segment_of(snapshot: Snapshot, finding: Finding) -> SegmentDescription:
    segments = snapshot.segments(finding.partition)
    return segments[bisect_right([segment.first for segment in segments], finding.sequence) - 1]


def _described(snapshot: Snapshot, segment: SegmentDescription, finding: Finding, line: int) -> Problem:
    message = snapshot.message(finding.partition, finding.sequence)
    if message is None:
        return Problem(segment.name, line, "", "its commit is missing")
    aggregate = aggregate_of(message.subject)
    if finding.kind == "reference":
        return Problem(segment.name, line, aggregate, "it refers to a run or run config that is not before it")
    what = f"version {decode(message).commit.version} comes where version {finding.version} is next"
    return Problem(segment.name, line, aggregate, what)
