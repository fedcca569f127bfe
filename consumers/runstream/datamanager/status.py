"""The data status: the one object that says what the archive of an epoch holds. It is written last.

    {"sha256":"…","status":{"deployment":"…","epoch":1,"generation":3,"partitions":[…],…}}

It stays small however long the log is: of each partition it names the newest segments itself, and the older ones by
the last of a chain of lists (`SegmentIndex`), each of which names the one before by its hash.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
import orjson

from runstream.commits import LogPosition
from runstream.datamanager.errors import DamagedArchiveError
from runstream.errors import InternalError
from runstream.glance import body_of
from runstream.log.port import RawMessage
from runstream.snapshots.segments import Count, Hash, SegmentDescription, Sequence
from runstream.subjects import MAX_PARTITIONS, Subjects

FORMAT = 1
"""Of the archive; `docs/explanation/datamanager.md` describes it."""
MAX_BYTES = 64 << 20
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_Text = Annotated[str, msgspec.Meta(max_length=200)]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReference:
    """Where older segments of a partition are listed."""

    first: Sequence
    last: Sequence
    segments: Sequence
    """How many are listed in it."""
    last_sha256: Hash
    """The `sha256` of the last of them."""
    sha256: Hash
    """Of the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentIndex:
    """A list of segments that will not be merged any more."""

    format: Sequence
    epoch: Sequence
    partition: Count
    previous: IndexReference | None
    """The list before it."""
    segments: tuple[SegmentDescription, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """The last commit of a partition that is archived."""

    sha256: Hash
    """See `fingerprint`."""
    stored_at: _Moment
    """When it was stored in the log, by NATS's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStatus:
    """What is archived of one partition."""

    index: IndexReference | None = None
    segments: tuple[SegmentDescription, ...] = ()
    """Those behind the index, in order."""
    tip: Tip | None = None
    """None when nothing is archived."""

    @property
    def last(self) -> int:
        """The last sequence that is archived; 0 for none."""
        if self.segments:
            return self.segments[-1].last
        return self.index.last if self.index is not None else 0

    @property
    def last_sha256(self) -> str:
        """The hash of the last segment, which the next one names; empty when there is none."""
        if self.segments:
            return self.segments[-1].sha256
        return self.index.last_sha256 if self.index is not None else ""

    def behind(self, segment: SegmentDescription, tip: Tip) -> PartitionStatus:
        """With one more segment."""
        return replace(self, segments=(*self.segments, segment), tip=tip)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataStatus:
    """What the archive of an epoch holds."""

    format: Sequence = FORMAT
    deployment: _Text
    namespace: _Text
    service: _Text
    epoch: Sequence
    generation: Sequence
    """Which datamanager wrote it: each one that takes the archive over has a higher one."""
    serial: Count
    """How often it was written in this generation before."""
    written_at: _Moment
    partitions: Annotated[tuple[PartitionStatus, ...], msgspec.Meta(min_length=1, max_length=MAX_PARTITIONS)] = field(
        default=(PartitionStatus(),)
    )

    @property
    def subjects(self) -> Subjects:
        """How the log is named that it is of."""
        return Subjects(self.namespace, self.service, self.epoch)

    @property
    def position(self) -> LogPosition:
        """Up to where the log is archived."""
        return LogPosition(self.epoch, tuple(partition.last for partition in self.partitions))

    @property
    def commits(self) -> int:
        """How many are archived, in all partitions."""
        return sum(partition.last for partition in self.partitions)

    @property
    def until(self) -> datetime | None:
        """When the newest commit that is archived was stored in the log; None when there is none."""
        return max((p.tip.stored_at for p in self.partitions if p.tip is not None), default=None)

    def at(self, partition: int, status: PartitionStatus) -> DataStatus:
        """With another status of one partition."""
        return replace(self, partitions=(*self.partitions[:partition], status, *self.partitions[partition + 1 :]))


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentEpoch:
    """`current.json`: which epoch was served last, for when NATS and database are both lost."""

    format: Sequence
    deployment: _Text
    epoch: Sequence


def fingerprint(message: RawMessage) -> str:
    """The hash of a commit and its place: the same for the one that was archived and the one that was restored."""
    place = f"{message.position.sequence} {message.subject.split('.', 4)[-1]}\n"
    return hashlib.sha256(place.encode() + body_of(message)).hexdigest()


def tip_of(message: RawMessage) -> Tip:
    """The tip that a partition has with this message as its last."""
    return Tip(sha256=fingerprint(message), stored_at=message.stored_at)


def written(status: DataStatus) -> bytes:
    """As the object's content."""
    content = _dumped(status)
    return b'{"sha256":"%b","status":%b}\n' % (hashlib.sha256(content).hexdigest().encode(), content)


def read_status(path: str, content: bytes) -> DataStatus:
    """The data status in an object's content. Raises DamagedArchiveError, InternalError for a newer format."""
    found = _parsed(path, content)
    status = found.get("status")
    _require_format(path, status)
    if hashlib.sha256(orjson.dumps(status, option=orjson.OPT_SORT_KEYS)).hexdigest() != found.get("sha256"):
        raise DamagedArchiveError(path, "its SHA-256 is not the one that it says")
    return _converted(path, status, DataStatus)


def written_part(value: SegmentIndex | CurrentEpoch) -> bytes:
    """As the object's content."""
    return _dumped(value) + b"\n"


def read_index(path: str, content: bytes, reference: IndexReference) -> SegmentIndex:
    """The list of segments in an object's content. Raises DamagedArchiveError."""
    if hashlib.sha256(content).hexdigest() != reference.sha256:
        raise DamagedArchiveError(path, "its SHA-256 is not the one that is written down")
    return _converted(path, _parsed(path, content), SegmentIndex)


def read_current(path: str, content: bytes) -> CurrentEpoch:
    """The current epoch in an object's content. Raises DamagedArchiveError, InternalError for a newer format."""
    found = _parsed(path, content)
    _require_format(path, found)
    return _converted(path, found, CurrentEpoch)


def _dumped(value: DataStatus | SegmentIndex | CurrentEpoch) -> bytes:
    return orjson.dumps(msgspec.to_builtins(value), option=orjson.OPT_SORT_KEYS)


def _parsed(path: str, content: bytes) -> dict[str, object]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise DamagedArchiveError(path, f"it is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise DamagedArchiveError(path, "it is not a JSON object")
    return found


def _converted(path: str, found: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise DamagedArchiveError(path, f"it cannot be read: {error}") from error


def _require_format(path: str, found: object) -> None:
    number = found.get("format") if isinstance(found, dict) else None
    if isinstance(number, int) and number > FORMAT:
        raise InternalError(
            f"{path} of the archive has format {number}, this Runstream knows up to {FORMAT}",
            code="newerArchive",
            details={"path": path},
            hint="use the Runstream that wrote it, or a later one",
        )


_HASH_DIGITS = 12
_STATUS = re.compile(r"status-(\d{9})\.json")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the archive of one epoch is."""

    namespace: str
    service: str
    epoch: int

    @classmethod
    def of(cls, subjects: Subjects) -> Places:
        """The places of the log with these subjects."""
        return cls(subjects.namespace, subjects.service, subjects.epoch)

    @property
    def service_folder(self) -> str:
        """What all objects of the service begin with."""
        return f"archive/{self.namespace}/{self.service}/"

    @property
    def folder(self) -> str:
        """What all objects of the epoch begin with."""
        return f"{self.service_folder}{self.epoch}/"

    @property
    def current(self) -> str:
        """The object that names the current epoch."""
        return f"{self.service_folder}current.json"

    @property
    def statuses(self) -> str:
        """What the data statuses begin with."""
        return f"{self.folder}status-"

    def status(self, generation: int) -> str:
        """The data status of a generation."""
        return f"{self.statuses}{generation:09}.json"

    def generation(self, path: str) -> int | None:
        """The generation of the data status with this path; None for anything else."""
        match = _STATUS.fullmatch(path.removeprefix(self.folder))
        return int(match[1]) if match is not None else None

    def segment(self, segment: SegmentDescription) -> str:
        """A segment."""
        name = f"{segment.first:012}-{segment.last:012}.{segment.file_sha256[:_HASH_DIGITS]}.jsonl.zst"
        return f"{self.folder}{segment.partition:03}/{name}"

    def index(self, partition: int, first: int, last: int, sha256: str) -> str:
        """A list of segments."""
        return f"{self.folder}{partition:03}/index-{first:012}-{last:012}.{sha256[:_HASH_DIGITS]}.json"
