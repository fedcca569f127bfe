"""The texts of a snapshot: `snapshot.json` at its beginning, `manifest.json` at its end, and two files for people.

The header says what the export includes, so that an interrupted export can resume. The manifest says what the file
holds, with the hash of every other file: the hash of the manifest therefore covers the whole snapshot. `README.md` and
`event-types.md` explain the rest to a reader who has only `tar`, `zstd` and `jq`.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec
import orjson
from msgspec.structs import fields as fields_of

from runstream.counting import counted
from runstream.events import registry
from runstream.events.event import DomainEvent
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.segments import Count, Hash, SegmentDescription, Sequence
from runstream.subjects import MAX_PARTITIONS, Subjects, aggregate_of

FORMAT = 1
"""Version of the format of a snapshot of one service, described in `docs/formats/snapshot.md`."""
FORMAT_OF_SEVERAL = 2
"""Version of the format of a snapshot that holds the logs of further services, each in a folder of its own."""
README = "README.md"
EVENT_TYPES = "event-types.md"
SNAPSHOT = "snapshot.json"
MANIFEST = "manifest.json"
SIGNATURE = "signature.ed25519"
END = "END"
TEXTS = (README, EVENT_TYPES, SNAPSHOT)
"""The first files of a snapshot, in this order."""
FOLDER_TEXTS = (SNAPSHOT,)
"""The first files in the folder of a further service."""
MAX_TEXT_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 64 << 20
ObjectKind = Literal["logs", "archives"]
_Text = Annotated[str, msgspec.Meta(max_length=200)]
_Token = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHeader:
    """`snapshot.json`: what the export includes."""

    format: Sequence
    runstream: _Text
    """Version of Runstream that wrote it."""
    created: _Moment
    namespace: _Token
    service: _Token
    epoch: Sequence
    partitions: Annotated[int, msgspec.Meta(ge=1, le=MAX_PARTITIONS)]
    ends: tuple[Count, ...]
    """The last sequence of each partition that the export may include, read once at its beginning."""
    until: _Moment | None
    """Each partition ends before its first commit made later than this; None for no limit."""
    objects: tuple[ObjectKind, ...]
    """The kinds of objects that are included."""
    also: tuple[_Token, ...] = ()
    """Further services whose logs the file holds, each in the folder of its name. Runstream 0.1 did not write this."""

    @property
    def subjects(self) -> Subjects:
        """The subjects of the exported log."""
        return Subjects(self.namespace, self.service, self.epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectList:
    """The list of the objects before it, with names, sizes and hashes."""

    name: _Text
    objects: Sequence
    bytes: Count
    """Total size of the objects."""
    file_bytes: Sequence
    file_sha256: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstParked:
    """The first parked commit of an aggregate: the exported deployment applied neither it nor any later one."""

    partition: Annotated[int, msgspec.Meta(ge=0, lt=MAX_PARTITIONS)]
    sequence: Sequence
    subject: Annotated[str, msgspec.Meta(max_length=512)]
    """The part of the subject behind the partition, as in a segment."""
    reason: Annotated[str, msgspec.Meta(max_length=2000)]
    """The reason, as people read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`manifest.json`: the contents of the snapshot."""

    format: Sequence
    texts: dict[str, Hash]
    """SHA-256 of each of the first files."""
    positions: tuple[Count, ...]
    """The last included sequence of each partition; 0 for none."""
    commits: Count
    events: dict[Annotated[str, msgspec.Meta(max_length=80)], Sequence]
    """Number of events of each type."""
    unreadable: Count
    """Number of commits whose events cannot be counted."""
    segments: tuple[SegmentDescription, ...]
    objects: tuple[ObjectList, ...]
    left_out: tuple[str, ...]
    """Data of the deployment that the snapshot does not hold, as text."""
    public_key: Annotated[str, msgspec.Meta(max_length=1000)]
    """PEM of the Ed25519 public key that checks the signature; empty without a signature."""
    parked: tuple[FirstParked, ...] = ()
    """The first parked commit of each aggregate with parked commits. Runstream 0.1 did not write this."""
    logs: dict[_Token, Hash] = field(default_factory=dict)
    """SHA-256 of the manifest of each further service. Runstream 0.1 did not write this."""

    @property
    def event_count(self) -> int:
        """Total number of events."""
        return sum(self.events.values())


def events_by_type(segments: tuple[SegmentDescription, ...]) -> dict[str, int]:
    """Return the number of events of each type in all segments, by name."""
    total: Counter[str] = Counter()
    for segment in segments:
        total.update(segment.events)
    return dict(sorted(total.items()))


def positions_of(segments: tuple[SegmentDescription, ...], partitions: int) -> tuple[int, ...]:
    """Return the last sequence of each partition; the segments of each must be in order."""
    ends = [0] * partitions
    for segment in segments:
        ends[segment.partition] = segment.last
    return tuple(ends)


def parked_from(manifest: Manifest, subjects: Subjects, partition: int) -> dict[str, int]:
    """Return the first parked sequence of each aggregate of a partition."""
    prefix = subjects.prefix(partition)
    mine = (one for one in manifest.parked if one.partition == partition)
    return {aggregate_of(f"{prefix}.{one.subject}"): one.sequence for one in mine}


def to_json(value: SnapshotHeader | Manifest) -> bytes:
    """Return the value as indented JSON."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z) + b"\n"


def end_of(manifest: bytes) -> bytes:
    """Return the content of the last file, in the format of `sha256sum -c`."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def read_header(content: bytes) -> SnapshotHeader:
    """Parse `snapshot.json`. Raises SnapshotError."""
    header = _read(SNAPSHOT, content, SnapshotHeader)
    if len(header.ends) != header.partitions:
        raise SnapshotError(SNAPSHOT, f"it has {counted(header.partitions, 'partition')} and {len(header.ends)} ends")
    services = (header.service, *header.also)
    if len({*services}) < len(services) or (header.format == FORMAT_OF_SEVERAL) != bool(header.also):
        raise SnapshotError(SNAPSHOT, f"format {header.format} cannot have the services {', '.join(services)}")
    return header


def folder_of(service: str) -> str:
    """Return the folder of a further service in a snapshot."""
    return f"{service}/"


def read_manifest(content: bytes) -> Manifest:
    """Parse `manifest.json`. Raises SnapshotError."""
    return _read(MANIFEST, content, Manifest)


def _read(part: str, content: bytes, kind: type[T]) -> T:
    try:
        found: Mapping[str, object] = orjson.loads(content)
        number = found.get("format")
        if isinstance(number, int) and number > FORMAT_OF_SEVERAL:  # before any other check
            raise SnapshotError(
                part,
                f"the snapshot has format {number}, this Runstream knows up to {FORMAT_OF_SEVERAL}",
                code="newerSnapshot",
                hint="use the Runstream that wrote it, or a later one",
            )
        return msgspec.convert(found, kind)
    except (orjson.JSONDecodeError, msgspec.ValidationError, TypeError, AttributeError) as error:
        raise SnapshotError(part, f"it cannot be read: {error}") from error


_README = """\
# A snapshot of Runstream

The event log of the deployment `{namespace}` (service `{service}`, epoch {epoch}, {partitions} partitions), exported on
{created} by Runstream {runstream}. Everything that ever happened there is in these files, up to one position of each
partition. Nothing but `tar`, `zstd` and `jq` is needed to read it.
{also}
| file | holds |
|---|---|
| `event-types.md` | every type of event and its fields |
| `snapshot.json` | what was to be exported |
| `segments/<partition>/<first>-<last>.jsonl.zst` | the commits of a partition, one JSON object a line, in order |
| `logs/...`, `workspacearchives/...` | step logs and workspace archives, if they were asked for |
| `object-lists/...` | the sizes and hashes of those |
| `manifest.json` | positions, counts and the SHA-256 of every file before it; what was left out |
| `signature.ed25519` | of `manifest.json`, if it was signed |
| `END` | the SHA-256 of `manifest.json`; without it the file was cut off |

    tar -xf SNAPSHOT && sha256sum -c END
    jq '.positions, .events, .left_out' manifest.json
    cat segments/000/*.zst | zstd -d | jq -c '{{sequence, subject, events: [.commit.events[].type]}}' | head
    find segments -type f | sort | xargs sha256sum | awk '{{print $1}}' > found
    jq -r '.segments | sort_by(.partition, .first)[].file_sha256' manifest.json | cmp - found && echo all as exported

A line's `commit` is one decision about one aggregate: its id, `aggregate`, `version` (1, 2, 3 ...), `time`, `actor`,
`cause` (the commit that led to it) and `events`. `sequence` is its place in the partition, `stored_at` when
the server had it.

`runstream snapshot verify FILE` checks all of it without any server; `runstream import FILE` loads it.
"""


_ALSO = """
The log of the service `{0}` is in the folder `{0}`, with a `snapshot.json`, segments and a `manifest.json` of its own,
whose SHA-256 is in the `manifest.json` here.
"""


def readme(header: SnapshotHeader) -> bytes:
    """Return the README.md of a snapshot."""
    return _README.format(
        namespace=header.namespace,
        service=header.service,
        epoch=header.epoch,
        partitions=header.partitions,
        created=f"{header.created:%Y-%m-%d %H:%M:%S} UTC",
        runstream=header.runstream,
        also="".join(map(_ALSO.format, header.also)),
    ).encode()


def event_types() -> bytes:
    """Return the event-types.md of a snapshot: every event type that this version writes."""
    lines = ["# Types of events", "", "| type | version | says | fields |", "|---|---|---|---|"]
    lines += [_row(name, event) for name, event in registry.EVENT_TYPES.items()]
    return ("\n".join(lines) + "\n").encode()


def _row(name: str, event: type[DomainEvent]) -> str:
    says = " ".join((inspect.getdoc(event) or "").split()).replace("|", "\\|")
    names = ", ".join(f"`{field.name}`" for field in fields_of(event))
    return f"| `{name}` | {event.SCHEMA_VERSION} | {says} | {names} |"
