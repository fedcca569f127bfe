"""Comparison of two snapshots, commit by commit; epochs and server times do not count.

Snapshots with the same number of partitions are compared in order, partition by partition. An import into another
number of partitions keeps only the order of each aggregate: such snapshots are compared as sets of commits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from runstream.counting import counted
from runstream.log.port import RawMessage
from runstream.snapshots.manifest import Manifest
from runstream.snapshots.reading import Snapshot
from runstream.snapshots.verify import BUCKETS, bucket_files

MAX_DIFFERENCES = 20
_HASH = 16


@dataclass(slots=True)
class Comparison:
    """The result of comparing two snapshots."""

    same: int = 0
    """Commits that both have."""
    only: tuple[int, int] = (0, 0)
    """Commits that only the first has, and that only the second has (at that place)."""
    differences: list[str] = field(default_factory=list)
    """The first differences, as text."""

    @property
    def equal(self) -> bool:
        """True when both hold the same commits."""
        return self.only == (0, 0)

    def add(self, first: int, second: int, what: str) -> None:
        """Count commits that only one snapshot has."""
        self.only = (self.only[0] + first, self.only[1] + second)
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(what)


def compare(first: Snapshot, second: Snapshot) -> Comparison:
    """Compare two open snapshots, service by service. Raises SnapshotError when one of them is damaged."""
    found = Comparison()
    sides = [{one.header.service: one for one in side.all} for side in (first, second)]
    for service in dict.fromkeys((*sides[0], *sides[1])):
        one, other = (side.get(service) for side in sides)
        if one is not None and other is not None:
            _compare_logs(one, other, found)
        elif one is not None:
            found.add(one.manifest.commits, 0, f"only the first has the log of {service}")
        elif other is not None:
            found.add(0, other.manifest.commits, f"only the second has the log of {service}")
    return found


def _compare_logs(first: Snapshot, second: Snapshot, found: Comparison) -> None:
    if first.header.partitions == second.header.partitions:
        for partition in range(first.header.partitions):
            _compare_partition(first, second, partition, found)
    else:
        _compare_aggregates(first, second, found)


def _compare_partition(first: Snapshot, second: Snapshot, partition: int, found: Comparison) -> None:
    for number, (one, other) in enumerate(zip_longest(first.messages(partition), second.messages(partition)), 1):
        if one is None or other is None:
            left = (_length(first.manifest, partition) - number + 1, _length(second.manifest, partition) - number + 1)
            which, more = ("first", left[0]) if other is None else ("second", left[1])
            found.add(
                max(left[0], 0),
                max(left[1], 0),
                f"{first.folder}partition {partition}: the {which} has {counted(more, 'commit')} more",
            )
            return
        if _content(one) == _content(other):
            found.same += 1
        else:
            place = f"{first.folder}partition {partition}, commit {number}"
            found.add(1, 1, f"{place}: {_tail(one)} in the first, {_tail(other)} in the second")


def _length(manifest: Manifest, partition: int) -> int:
    return sum(segment.commits for segment in manifest.segments if segment.partition == partition)


def _compare_aggregates(first: Snapshot, second: Snapshot, found: Comparison) -> None:
    """Compare the commits as sets, one bucket at a time; a commit holds its version, so this compares order as well."""
    sides = (_digests(first), _digests(second))
    for one, other in zip(*sides, strict=True):
        found.same += len(one & other)
        for digest in sorted(one ^ other):
            only_first = digest in one
            which = "first" if only_first else "second"
            name = digest[_HASH:].decode(errors="replace").rstrip()
            found.add(only_first, not only_first, f"only the {which} has a commit of {name}")


def _digests(snapshot: Snapshot) -> Iterator[frozenset[bytes]]:
    """Yield each bucket's commit digests, each followed by the beginning of its subject."""
    with bucket_files() as files:
        for partition in range(snapshot.header.partitions):
            for message in snapshot.messages(partition):
                tail, data, headers = _content(message)
                text = b"\0".join((tail.encode(), data, headers.encode()))
                digest = hashlib.blake2b(text, digest_size=_HASH).digest()
                files[digest[0] % BUCKETS].write(digest + tail.encode()[:64].ljust(64))
        for file in files:
            file.seek(0)
            yield frozenset(iter(lambda file=file: file.read(_HASH + 64), b""))  # type: ignore[misc]


def _content(message: RawMessage) -> tuple[str, bytes, str]:
    return _tail(message), message.data, "\0".join(f"{k}:{v}" for k, v in sorted(message.headers.items()))


def _tail(message: RawMessage) -> str:
    return message.subject.split(".", 4)[-1]
