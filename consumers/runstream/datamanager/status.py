"""The format of an archive: the names of its objects, and the data status that names the segments.

    archive/<namespace>/<service>/current.json                                   which epoch is the current one
    archive/<namespace>/<service>/<epoch>/status-<generation>.json               the data status
    archive/<namespace>/<service>/<epoch>/<partition>/<first>-<last>.<hash>.jsonl.zst
    archive/<namespace>/<service>/<epoch>/<partition>/index-<first>-<last>.<hash>.json

    {"sha256":"…","status":{"deployment":"…","epoch":1,"generation":3,"partitions":[…],…}}

Objects named by their content (a part of its SHA-256) never change: two writers of one name write the same bytes. Each
datamanager writes its data status under its own generation; the highest generation is valid.

The data status stays small however long the log is: for each partition it names the newest segments itself, and the
older ones by a chain of lists (`SegmentIndex`), each of which names its predecessor by its hash.
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
"""Version of the archive's format, which `docs/explanation/datamanager.md` describes."""
MAX_BYTES = 64 << 20
"""Size of a data status or list, in bytes."""
_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_Text = Annotated[str, msgspec.Meta(max_length=200)]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReference:
    """A reference to a list of older segments of a partition."""

    first: Sequence
    last: Sequence
    segments: Sequence
    """Number of segments in the list."""
    last_sha256: Hash
    """The `sha256` of the last segment."""
    sha256: Hash
    """Hash of the list's object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentIndex:
    """A list of segments that are too large to be merged again."""

    format: Sequence
    epoch: Sequence
    partition: Count
    previous: IndexReference | None
    """The preceding list."""
    segments: tuple[SegmentDescription, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """The last archived commit of a partition."""

    sha256: Hash
    """See `fingerprint`."""
    stored_at: _Time
    """Time at which the log stored it, by NATS's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStatus:
    """The archive of one partition."""

    index: IndexReference | None = None
    segments: tuple[SegmentDescription, ...] = ()
    """Segments after the index, in order."""
    tip: Tip | None = None
    """None while nothing is archived."""

    @property
    def last(self) -> int:
        """The last archived sequence; 0 for none."""
        if self.segments:
            return self.segments[-1].last
        return self.index.last if self.index is not None else 0

    @property
    def last_sha256(self) -> str:
        """The hash of the last segment, which the next one names; empty for none."""
        if self.segments:
            return self.segments[-1].sha256
        return self.index.last_sha256 if self.index is not None else ""

    def with_segment(self, segment: SegmentDescription, last: RawMessage) -> PartitionStatus:
        """Return the status with one more segment; `last` is its last message."""
        tip = Tip(sha256=fingerprint(last), stored_at=last.stored_at)
        return replace(self, segments=(*self.segments, segment), tip=tip)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataStatus:
    """The contents of an epoch's archive."""

    format: Sequence = FORMAT
    deployment: _Text
    namespace: _Text
    service: _Text
    epoch: Sequence
    generation: Sequence
    """Number of the datamanager that wrote it; see `runstream.datamanager.fence`."""
    serial: Count
    """Number of earlier writes in this generation."""
    written_at: _Time
    partitions: Annotated[tuple[PartitionStatus, ...], msgspec.Meta(min_length=1, max_length=MAX_PARTITIONS)] = field(
        default=(PartitionStatus(),)
    )

    @property
    def subjects(self) -> Subjects:
        """The subjects of the archived log."""
        return Subjects(self.namespace, self.service, self.epoch)

    @property
    def position(self) -> LogPosition:
        """The position up to which the log is archived."""
        return LogPosition(self.epoch, tuple(partition.last for partition in self.partitions))

    @property
    def commits(self) -> int:
        """Number of archived commits, in all partitions."""
        return sum(partition.last for partition in self.partitions)

    @property
    def until(self) -> datetime | None:
        """Time at which the log stored the newest archived commit; None without commits."""
        return max((p.tip.stored_at for p in self.partitions if p.tip is not None), default=None)

    def with_partition(self, partition: int, status: PartitionStatus) -> DataStatus:
        """Return the status with another status of one partition."""
        return replace(self, partitions=(*self.partitions[:partition], status, *self.partitions[partition + 1 :]))


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentEpoch:
    """`current.json`: the epoch that was served last, read when both NATS and the database are lost."""

    format: Sequence
    deployment: _Text
    epoch: Sequence


def fingerprint(message: RawMessage) -> str:
    """Hash a commit and its position; the hash survives archiving and restoring."""
    place = f"{message.position.sequence} {message.subject.split('.', 4)[-1]}\n"
    return hashlib.sha256(place.encode() + body_of(message)).hexdigest()


def encode_status(status: DataStatus) -> bytes:
    """Return the content of the object of a data status."""
    content = _dumped(status)
    return b'{"sha256":"%b","status":%b}\n' % (hashlib.sha256(content).hexdigest().encode(), content)


def read_status(path: str, content: bytes) -> DataStatus:
    """Decode a data status. Raises DamagedArchiveError, InternalError for a newer format."""
    found = _parsed(path, content)
    status = found.get("status")
    _require_format(path, status)
    if hashlib.sha256(orjson.dumps(status, option=orjson.OPT_SORT_KEYS)).hexdigest() != found.get("sha256"):
        raise DamagedArchiveError(path, "its SHA-256 is not the one that it states")
    return _converted(path, status, DataStatus)


def encode(value: SegmentIndex | CurrentEpoch) -> bytes:
    """Return the content of the object of a list, or of the current epoch."""
    return _dumped(value) + b"\n"


def read_index(path: str, content: bytes, reference: IndexReference) -> SegmentIndex:
    """Decode the list that a reference names. Raises DamagedArchiveError."""
    if hashlib.sha256(content).hexdigest() != reference.sha256:
        raise DamagedArchiveError(path, "its SHA-256 is not the one in its reference")
    return _converted(path, _parsed(path, content), SegmentIndex)


def read_current(path: str, content: bytes) -> CurrentEpoch:
    """Decode the current epoch. Raises DamagedArchiveError, InternalError for a newer format."""
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
            f"{path} of the archive has format {number}; this version of Runstream reads formats up to {FORMAT}",
            code="newerArchive",
            details={"path": path},
            hint="use the version that wrote it, or a later one",
        )


_HASH_DIGITS = 12
_STATUS = re.compile(r"status-(\d{9})\.json")


@dataclass(frozen=True, slots=True)
class ArchivePaths:
    """The paths of the objects of one epoch's archive."""

    subjects: Subjects
    """The subjects of the log."""

    @property
    def service_folder(self) -> str:
        """Prefix of all objects of the service."""
        return f"archive/{self.subjects.namespace}/{self.subjects.service}/"

    @property
    def folder(self) -> str:
        """Prefix of all objects of the epoch."""
        return f"{self.service_folder}{self.subjects.epoch}/"

    @property
    def current(self) -> str:
        """Path of the object that names the current epoch."""
        return f"{self.service_folder}current.json"

    @property
    def statuses(self) -> str:
        """Prefix of the data statuses."""
        return f"{self.folder}status-"

    def status(self, generation: int) -> str:
        """Return the path of a generation's data status."""
        return f"{self.statuses}{generation:09}.json"

    def generation(self, path: str) -> int | None:
        """Return the generation of the data status at this path; None for any other path."""
        match = _STATUS.fullmatch(path.removeprefix(self.folder))
        return int(match[1]) if match is not None else None

    def segment(self, segment: SegmentDescription) -> str:
        """Return the path of a segment."""
        name = f"{segment.first:012}-{segment.last:012}.{segment.file_sha256[:_HASH_DIGITS]}.jsonl.zst"
        return f"{self.folder}{segment.partition:03}/{name}"

    def index(self, partition: int, reference: IndexReference) -> str:
        """Return the path of a list of segments."""
        name = f"index-{reference.first:012}-{reference.last:012}.{reference.sha256[:_HASH_DIGITS]}.json"
        return f"{self.folder}{partition:03}/{name}"
