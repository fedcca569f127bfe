"""Versions without a gap, and references to what is there: checked for any number of aggregates in bounded memory.

Each commit leaves a small record for its aggregate, and one for each aggregate that its events refer to. Records are
kept in temporary files by a hash of the aggregate; at the end each file is sorted in memory, a part at a time.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from runstream.commits import Commit
from runstream.events.executor_task import ExecutorTaskAssigned
from runstream.events.run import RunCreated
from runstream.log.port import RawMessage
from runstream.subjects import aggregate_of

BUCKETS = 64
_RECORD = struct.Struct(">16sQq")
_SIZE = _RECORD.size
_PARTITION_SHIFT = 56
_IN_MEMORY_BYTES = 64 << 10
"""Of each bucket, before it becomes a file."""
_SORTED_BYTES = 4 << 20
"""Records that are sorted at once; each takes some five times as much."""
_REFERENCE, _UNREADABLE, _SKIPPED = 0, -1, -2
"""What a record has in the place of a version; of a skipped commit less the version after it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with an aggregate, and at which commit it shows."""

    partition: int
    sequence: int
    kind: Literal["version", "reference"]
    version: int = 0
    """The version that the commit should have."""


@dataclass(slots=True)
class Records:
    """The records of some commits of one partition, by bucket."""

    partition: int
    buckets: list[bytearray] = field(default_factory=lambda: [bytearray() for _ in range(BUCKETS)])
    _keys: dict[str, bytes] = field(default_factory=dict)
    """Of the aggregates met lately."""

    def commit(self, commit: Commit, sequence: int) -> None:
        """A commit that could be read."""
        self._add(commit.address.aggregate, sequence, commit.version)
        for event in commit.events:
            match event:
                case RunCreated(run_config=config):
                    self._add(f"runconfig/{config}", sequence, _REFERENCE)
                case ExecutorTaskAssigned(run_id=run, run_config=config):
                    self._add(f"run/{run}", sequence, _REFERENCE)
                    self._add(f"runconfig/{config}", sequence, _REFERENCE)

    def skipped(self, message: RawMessage, version: int) -> None:
        """A commit that is skipped: its aggregate has this version after it, and nothing else came of it."""
        self._add(aggregate_of(message.subject), message.position.sequence, _SKIPPED - version)

    def unreadable(self, message: RawMessage) -> None:
        """A commit that could not: nothing more is said about its aggregate's versions."""
        self._add(aggregate_of(message.subject), message.position.sequence, _UNREADABLE)

    def _add(self, aggregate: str, sequence: int, version: int) -> None:
        key = self._keys.get(aggregate)
        if key is None:
            name = f"{self.partition}/{aggregate}".encode("utf-8", "surrogatepass")
            key = hashlib.blake2b(name, digest_size=16).digest()
            self._keys[aggregate] = key
        place = self.partition << _PARTITION_SHIFT | sequence
        self.buckets[key[0] % BUCKETS] += _RECORD.pack(key, place, min(version, 1 << 62))


class Aggregates:
    """All records of a snapshot; a context manager that removes its temporary files."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._files: list[tempfile.SpooledTemporaryFile[bytes]] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._files = [stack.enter_context(spooled()) for _ in range(BUCKETS)]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, buckets: Sequence[bytes | bytearray]) -> None:
        """Take in the records of a segment, in any order."""
        for file, records in zip(self._files, buckets, strict=True):
            file.write(records)

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong, aggregate by aggregate."""
        for bucket, file in enumerate(self._files):
            size = file.tell()
            parts = size // _SORTED_BYTES + 1
            for part in range(parts):
                file.seek(0)
                yield from _check(_records(file, bucket, part, parts))
            file.seek(size)


def spooled() -> tempfile.SpooledTemporaryFile[bytes]:
    """A temporary file that begins in memory; the caller closes it."""
    return tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)


def _records(file: tempfile.SpooledTemporaryFile[bytes], bucket: int, part: int, parts: int) -> list[bytes]:
    """The records of one part of the bucket's aggregates, by aggregate and place."""
    found: list[bytes] = []
    while chunk := file.read(_SIZE << 15):
        records = (chunk[at : at + _SIZE] for at in range(0, len(chunk), _SIZE))
        found += records if parts == 1 else (r for r in records if (r[1] << 8 | r[2]) % parts == part)
    found.sort()
    return found


def _check(records: list[bytes]) -> Iterator[Finding]:
    """What is wrong with these aggregates, whose records are in order."""
    current, reached, begun, silent = b"", 0, False, False
    for key, place, version in _RECORD.iter_unpack(b"".join(records)):
        if key != current:
            current, reached, begun, silent = key, 0, False, False
        if silent:
            continue
        if version == _UNREADABLE:
            silent = True
        elif version <= _SKIPPED:
            reached = _SKIPPED - version
        elif version == _REFERENCE:
            if not begun:
                yield Finding(*_place(place), "reference")
        else:
            if version != reached + 1:
                yield Finding(*_place(place), "version", reached + 1)
            reached, begun = version, True


def _place(place: int) -> tuple[int, int]:
    return place >> _PARTITION_SHIFT, place & ((1 << _PARTITION_SHIFT) - 1)
