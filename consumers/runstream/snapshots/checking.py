"""One segment, checked on its own: every commit read, decoded and upcast, every event counted.

This is the work that is shared out among processes. What concerns more than one segment (versions, references) comes
back as records.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import msgspec

from runstream.codec import decode
from runstream.commits import Commit
from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.events.run import RunCreated
from runstream.log.port import RawMessage
from runstream.skips import Skips
from runstream.snapshots.aggregates import Records
from runstream.snapshots.container import Entry, content
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.lines import types_of
from runstream.snapshots.segments import SegmentDescription, read_segment
from runstream.subjects import Subjects, aggregate_of, group_root, partition_of

MAX_SEGMENT_FILE_BYTES = 96 << 20
MAX_PROBLEMS = 20
"""Of one segment that are told."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, and where."""

    part: str
    line: int
    """From 1; 0 is the whole part."""
    aggregate: str
    """Empty where it is not about one."""
    what: str

    @classmethod
    def of(cls, error: SnapshotError) -> Problem:
        """What an error says."""
        return cls(error.part, error.line, error.aggregate, error.problem)

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line else ""
        return f"{self.part}{line}: {f'{self.aggregate}: ' if self.aggregate else ''}{self.what}"


@dataclass(frozen=True, slots=True)
class SegmentToCheck:
    """A segment, and what there is to know of its snapshot."""

    path: Path
    entry: Entry
    description: SegmentDescription
    subjects: Subjects
    partitions: int
    skips: Skips = field(default_factory=Skips)
    """What is skipped in the snapshot."""
    parked: Mapping[str, int] = field(default_factory=dict)
    """From which sequence on aggregates of the segment's partition were parked in the source."""


@dataclass(slots=True)
class Checked:
    """What came of it."""

    commits: int = 0
    skipped: int = 0
    parked: int = 0
    named: int = 0
    """How many of these the manifest names."""
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    records: list[bytearray] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Take note of a problem."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


class _EventType(msgspec.Struct, gc=False):
    type: str


class _EventTypes(msgspec.Struct, gc=False):
    events: list[_EventType]


_types = msgspec.json.Decoder(_EventTypes).decode
_partition_of = lru_cache(maxsize=4096)(partition_of)


def check_segment(asked: SegmentToCheck) -> Checked:
    """Check one segment. Never raises for what is wrong with it."""
    checked = Checked()
    try:
        with asked.path.open("rb") as file:
            data = content(file, asked.entry, MAX_SEGMENT_FILE_BYTES)
        _check(asked, data, checked)
    except SnapshotError as error:
        checked.add(Problem.of(error))
    return checked


def _check(asked: SegmentToCheck, data: bytes, checked: Checked) -> None:
    description = asked.description
    records = Records(description.partition)
    checked.records = records.buckets
    counts: dict[str, int] = {}
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
        unreadable += found is None
        types = found or []
        for kind in types:
            counts[kind] = counts.get(kind, 0) + 1
    if (counts, unreadable) != (description.events, description.unreadable):
        checked.add(Problem(description.name, 0, "", _difference(counts, description.events)))


def _was_parked(asked: SegmentToCheck, message: RawMessage, checked: Checked) -> bool:
    """Whether the source could not apply it: then nothing is asked of it here, but that it is on its partition."""
    sequence = message.position.sequence
    first = asked.parked.get(aggregate_of(message.subject))
    if first is None or sequence < first:
        return False
    checked.parked += 1
    checked.named += sequence == first
    with contextlib.suppress(BadRequestError):  # that it cannot be read is why it was parked
        commit = decode(message).commit
        for what in _misplaced(commit, asked.partitions):
            checked.add(_problem(asked, message, commit.address.aggregate, what))
    return True


def _types_of_commit(
    asked: SegmentToCheck, message: RawMessage, records: Records, checked: Checked
) -> list[str] | None:
    """The types of a commit's events, which is checked; None when it is not JSON."""
    try:
        commit = decode(message).commit
        types = [event.type for event in _types(message.data).events]
    except BadRequestError as error:
        records.unreadable(message)
        checked.add(_problem(asked, message, "", f"it cannot be read: {error.message}"))
        return types_of(message)
    records.commit(commit, message.position.sequence)
    for what in _misplaced(commit, asked.partitions):
        checked.add(_problem(asked, message, commit.address.aggregate, what))
    return types


def _misplaced(commit: Commit, partitions: int) -> list[str]:
    """Whether its partition is the one that the log puts it on."""
    for event in commit.events:
        if isinstance(event, RunCreated):
            try:
                expected = _partition_of(group_root(event.group), partitions)
            except BadRequestError as error:
                return [error.message]
            if expected != commit.address.partition:
                return [f"its group {event.group[:100]!r} belongs on partition {expected}"]
    return []


def _problem(asked: SegmentToCheck, message: RawMessage, aggregate: str, what: str) -> Problem:
    line = message.position.sequence - asked.description.first + 1
    return Problem(asked.description.name, line, aggregate, what)


def _difference(found: dict[str, int], said: dict[str, int]) -> str:
    kinds = [kind for kind in sorted({*found, *said}) if found.get(kind, 0) != said.get(kind, 0)]
    if not kinds:
        return "the number of unreadable commits is not the one in the manifest"
    kind = kinds[0]
    return f"it has {counted(found.get(kind, 0), 'event')} of type {kind}, and the manifest says {said.get(kind, 0)}"
