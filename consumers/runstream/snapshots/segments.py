"""Segments: immutable pieces of one partition, in order, each of which names the hash of the one before.

A segment is one zstd frame of JSON lines, one line for each commit, with sorted keys. `commit` is the body of the
commit's message byte for byte, decompressed; `subject` is what follows the partition; `trace` is present when the
commit has one:

    {"commit":{…},"sequence":812,"stored_at":"2026-11-23T02:16:40.7155Z","subject":"run.0b9f…","trace":"00-…"}

A message that is not a JSON object is kept in base64 as `unreadable` instead of `commit`, with the `encoding` of its
header.

    writer = SegmentWriter(epoch, partition)
    writer.add(message)
    if writer.full:
        segment = await asyncio.to_thread(writer.take().compress, previous)
    for message in read_segment(segment.description, segment.data, subjects): ...
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Sequential
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated

import msgspec
import orjson

from runstream.codec import (
    COMPRESS_FROM_BYTES,
    ENCODING_HEADER,
    ID_HEADER,
    MAX_BODY_BYTES,
    TRACE_HEADER,
    plain_body,
    zstd,
)
from runstream.commits import Position
from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.events.registry import EVENT_TYPES
from runstream.glance import id_of
from runstream.ids import derived_id
from runstream.log.loading import Load
from runstream.log.port import RawMessage
from runstream.snapshots.errors import SnapshotError
from runstream.subjects import MAX_PARTITIONS, Subjects

MAX_LINE_BYTES = MAX_BODY_BYTES * 4 // 3 + 4096
_LONG_BYTES = 1 << 20
_MAX_VALUES = 1_000_000
"""Values allowed in a line of more than 1 MiB: JSON can turn one byte of text into a hundred bytes of memory."""
_UNKNOWN = "(not a type)"
_NOTHING = msgspec.Raw()


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    sequence: Annotated[int, msgspec.Meta(ge=1, le=1 << 55)]
    stored_at: Annotated[datetime, msgspec.Meta(tz=True)]
    subject: Annotated[str, msgspec.Meta(max_length=512)]
    commit: msgspec.Raw = _NOTHING
    unreadable: str | None = None
    encoding: str = ""
    trace: Annotated[str, msgspec.Meta(max_length=512)] = ""


_read = msgspec.json.Decoder(_Line).decode


def line_of(message: RawMessage) -> tuple[bytes, list[str] | None]:
    """Return the line with its line feed, and the types of its events (None when the body is not a JSON object)."""
    begin, types, end = _body(message)
    trace = message.headers.get(TRACE_HEADER) if message.headers else None
    at = orjson.dumps(message.stored_at, option=orjson.OPT_UTC_Z)
    subject = orjson.dumps(message.subject.split(".", 4)[-1])
    if trace:
        end = b',"trace":' + orjson.dumps(trace) + end
    line = b'{%b"sequence":%d,"stored_at":%b,"subject":%b%b}\n' % (begin, message.position.sequence, at, subject, end)
    return line, types


def content_of(message: RawMessage) -> tuple[bytes, list[str] | None]:
    """Return the content of a message's line without its place and time, and the types of its events as in `line_of`.

    It is the same for a commit of the log and for its copy in a segment.
    """
    begin, types, end = _body(message)
    trace = message.headers.get(TRACE_HEADER, "") if message.headers else ""
    subject = message.subject.split(".", 4)[-1]
    return b"%b%b %b%b" % (begin, subject.encode("utf-8", "surrogatepass"), trace.encode(), end), types


def _body(message: RawMessage) -> tuple[bytes, list[str] | None, bytes]:
    """Return the beginning of a line, the types of its events, and its end."""
    try:
        body = plain_body(message)
        parsed = orjson.loads(body)
    except (BadRequestError, orjson.JSONDecodeError):
        return _as_it_is(message)
    if type(parsed) is not dict or b"\n" in body:
        return _as_it_is(message)
    return b'"commit":' + body + b",", _types(parsed), b""


def _types(body: dict[str, object]) -> list[str]:
    events = body.get("events")
    if type(events) is not list:
        return []
    return [_type(event) for event in events]


def _type(event: object) -> str:
    kind = event.get("type") if type(event) is dict else None
    if type(kind) is str and (kind in EVENT_TYPES or (kind.isidentifier() and len(kind) <= 80)):
        return kind
    return _UNKNOWN


def types_of(message: RawMessage) -> list[str] | None:
    """Return the types of a message's events, as segments count them; None when its body is not a JSON object."""
    return _body(message)[1]


def _as_it_is(message: RawMessage) -> tuple[bytes, None, bytes]:
    encoding = message.headers.get(ENCODING_HEADER, "") if message.headers else ""
    begin = b'"encoding":' + orjson.dumps(encoding) + b"," if encoding else b""
    return begin, None, b',"unreadable":"' + b64encode(message.data) + b'"'


def read_line(line: bytes, prefix: str, epoch: int, partition: int, part: str, number: int) -> RawMessage:
    """Parse a line into its message, with `prefix` before its subject. Raises SnapshotError with the line."""
    if len(line) > _LONG_BYTES and line.count(b",") + line.count(b"[") + line.count(b"{") > _MAX_VALUES:
        raise SnapshotError(part, f"it holds more than {_MAX_VALUES} values", line=number)
    try:
        read = _read(line)
        data, headers = _content(read)
    except (ValueError, RecursionError) as error:
        raise SnapshotError(part, f"it is not a line of a segment ({error})", line=number) from error
    if read.trace:
        headers[TRACE_HEADER] = read.trace
    position = Position(epoch, partition, read.sequence)
    return RawMessage(prefix + read.subject, position, data, headers, read.stored_at)


def _content(read: _Line) -> tuple[bytes, dict[str, str]]:
    if read.commit and read.unreadable is None and not read.encoding:
        return bytes(read.commit), {}
    if read.commit or read.unreadable is None:
        raise ValueError("it has either commit or unreadable")
    try:
        data = b64decode(read.unreadable, validate=True)
    except binascii.Error as error:
        raise ValueError(f"what is unreadable is not base64: {error}") from error
    return data, {ENCODING_HEADER: read.encoding} if read.encoding else {}


def as_load(message: RawMessage) -> Load:
    """Return the message to append to another log: under its commit's id, or a derived one when it is not a commit."""
    commit_id = id_of(message) or derived_id("loaded", message.subject, str(message.position.sequence))
    return Load(message.subject, *wire_form(message, commit_id))


def wire_form(message: RawMessage, commit_id: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers for appending a message to a log, as `runstream.codec` writes them."""
    headers = {ID_HEADER: commit_id, **message.headers}
    if len(message.data) <= COMPRESS_FROM_BYTES or ENCODING_HEADER in headers:
        return message.data, headers
    return zstd.compress(message.data), {**headers, ENCODING_HEADER: "zstd"}


MAX_BYTES = 8 << 20
"""Bytes of lines from which a segment is full; a single line may be longer."""
MAX_COMMITS = 50_000
MAX_SEGMENT_FILE_BYTES = 96 << 20
"""Size limit of a segment's file in a snapshot, in bytes."""
LIMIT_BYTES = 256 << 20
"""Size limit of the lines of a segment that is read, in bytes."""
_CHUNK_BYTES = 1 << 20
_WINDOW_LOG = 24
"""Limit of the window of a frame that is read: 16 MiB. Runstream writes at most 8."""
_LEVEL = 3
_NAME = re.compile(r"segments/(\d{3})/(\d{12,18})-(\d{12,18})\.jsonl\.zst")

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 55)]
Sequence = Annotated[int, msgspec.Meta(ge=1, le=1 << 55)]
Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentDescription:
    """The description of a segment in a manifest or in the data status."""

    partition: Annotated[int, msgspec.Meta(ge=0, lt=MAX_PARTITIONS)]
    epoch: Sequence
    first: Sequence
    """Sequence of the first commit; no sequence is missing up to `last`."""
    last: Sequence
    commits: Sequence
    events: dict[Annotated[str, msgspec.Meta(max_length=80)], Sequence]
    """Number of events of each type."""
    unreadable: Count
    """Number of commits that are not JSON objects in the log; their events are not counted."""
    bytes: Sequence
    """Number of bytes of the uncompressed lines."""
    sha256: Hash
    """SHA-256 of the uncompressed lines."""
    file_bytes: Sequence
    """Number of bytes of the zstd frame."""
    file_sha256: Hash
    """SHA-256 of the zstd frame, so that a reader can check it before it decompresses anything."""
    previous: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")]
    """The `sha256` of the previous segment of the partition; empty for the first."""

    @property
    def name(self) -> str:
        """Its path in a snapshot: `segments/<partition>/<first>-<last>.jsonl.zst`. Names sort as commits do."""
        return f"segments/{self.partition:03}/{self.first:012}-{self.last:012}.jsonl.zst"


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment and its description."""

    description: SegmentDescription
    data: bytes
    """One zstd frame."""


class SegmentWriter:
    """A collector of one partition's commits, in order. Hashing and compressing is left to the draft."""

    def __init__(
        self, epoch: int, partition: int, *, max_bytes: int = MAX_BYTES, max_commits: int = MAX_COMMITS
    ) -> None:
        self._epoch, self._partition = epoch, partition
        self._max_bytes, self._max_commits = max_bytes, max_commits
        self._draft = SegmentDraft(epoch, partition)

    @property
    def empty(self) -> bool:
        """True while the draft has no commit."""
        return not self._draft.lines

    @property
    def full(self) -> bool:
        """True when the draft has the size of a segment."""
        return self._draft.bytes >= self._max_bytes or len(self._draft.lines) >= self._max_commits

    def add(self, message: RawMessage) -> None:
        """Add the next commit."""
        self._draft.add(message)

    def take(self) -> SegmentDraft:
        """Return the draft and start another behind it."""
        draft, self._draft = self._draft, SegmentDraft(self._epoch, self._partition)
        return draft


class SegmentDraft:
    """The uncompressed lines of a segment in the making."""

    def __init__(self, epoch: int, partition: int) -> None:
        self._epoch, self._partition = epoch, partition
        self.first = self.last = 0
        self.lines: list[bytes] = []
        self.bytes = 0
        self._events: dict[str, int] = {}
        self._unreadable = 0

    def add(self, message: RawMessage) -> None:
        """Add a commit. Raises ValueError when it does not follow the last one."""
        sequence = message.position.sequence
        if self.lines and sequence != self.last + 1:
            raise ValueError(f"{sequence} does not follow {self.last}")
        line, types = line_of(message)
        self.keep(line, sequence, types)

    def keep(self, line: bytes, sequence: int, types: list[str] | None) -> None:
        """Add a line (with its line feed) with events of these types; None for an unreadable commit."""
        if types is None:
            self._unreadable += 1
        else:
            counts = self._events
            for kind in types:
                counts[kind] = counts.get(kind, 0) + 1
        self.lines.append(line)
        self.bytes += len(line)
        self.first, self.last = self.first or sequence, sequence

    def compress(self, previous: str) -> Segment:
        """Return the finished segment, chained to the previous one's hash. CPU-bound (300 MB/s): use a thread."""
        content = b"".join(self.lines)
        data = _frame(content)
        return Segment(self.describe(content, data, previous), data)

    def describe(self, content: bytes, data: bytes, previous: str) -> SegmentDescription:
        """Return the description for these lines (`content`) and their zstd frame (`data`)."""
        return SegmentDescription(
            partition=self._partition,
            epoch=self._epoch,
            first=self.first,
            last=self.last,
            commits=len(self.lines),
            events=self._events,
            unreadable=self._unreadable,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            file_bytes=len(data),
            file_sha256=hashlib.sha256(data).hexdigest(),
            previous=previous,
        )


def merged(parts: Sequential[Segment]) -> Segment:
    """Merge consecutive segments into one, chained to the segment before the first of them.

    CPU-bound, like `compress`. Raises SnapshotError for a damaged part.
    """
    first, last = parts[0].description, parts[-1].description
    content = b"".join(chunk for part in parts for chunk in _hashed(part.description, part.data))
    data = _frame(content)
    events: Counter[str] = Counter()
    for part in parts:
        events.update(part.description.events)
    description = replace(
        first,
        last=last.last,
        commits=sum(part.description.commits for part in parts),
        events=dict(events),
        unreadable=sum(part.description.unreadable for part in parts),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(data),
        file_sha256=hashlib.sha256(data).hexdigest(),
    )
    return Segment(description, data)


def _frame(content: bytes) -> bytes:
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _LEVEL,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    return zstd.compress(content, options=options)


def read_segment(description: SegmentDescription, data: bytes, subjects: Subjects) -> Iterator[RawMessage]:
    """Yield the messages of a segment in order, with these subjects and their epoch.

    Checks the frame's hash before the first message, and the hash of the lines behind the last one. Memory holds one
    line and one MiB. Raises SnapshotError with the segment and the line.
    """
    number, name = 0, description.name
    sequence = description.first
    prefix = subjects.prefix(description.partition) + "."
    for number, line in enumerate(_lines(name, _hashed(description, data)), 1):
        message = read_line(line, prefix, subjects.epoch, description.partition, name, number)
        if message.position.sequence != sequence:
            problem = f"it has sequence {message.position.sequence} where {sequence} is next"
            raise SnapshotError(name, problem, line=number)
        sequence += 1
        yield message
    if number != description.commits or sequence != description.last + 1:
        raise SnapshotError(name, f"it has {counted(number, 'commit')}, and should have {description.commits}")


def describe_segment(name: str, data: bytes, subjects: Subjects) -> SegmentDescription:
    """Compute the description of a segment from its file alone, unchained. Raises SnapshotError for a damaged file."""
    match = _NAME.fullmatch(name)
    if match is None or int(match[1]) >= MAX_PARTITIONS:
        raise SnapshotError(name, "it is not the name of a segment")
    partition, first, last = map(int, match.groups())
    draft = SegmentDraft(subjects.epoch, partition)
    prefix = subjects.prefix(partition) + "."
    for number, line in enumerate(_lines(name, unpacked(name, data, LIMIT_BYTES)), 1):
        message = read_line(line, prefix, subjects.epoch, partition, name, number)
        if message.position.sequence != first + number - 1:
            raise SnapshotError(name, "its commits do not follow each other", line=number)
        draft.keep(line + b"\n", message.position.sequence, types_of(message))
    if not draft.lines or draft.last != last:
        raise SnapshotError(name, f"its last commit is not {last}")
    return draft.describe(b"".join(draft.lines), data, "")


def _hashed(description: SegmentDescription, data: bytes) -> Iterator[bytes]:
    """Yield the lines in chunks, and check their hash behind the last one."""
    hashed = hashlib.sha256()
    size = 0
    for chunk in decompressed(description, data):
        size += len(chunk)
        hashed.update(chunk)
        yield chunk
    if size != description.bytes or hashed.hexdigest() != description.sha256:
        raise SnapshotError(description.name, "the SHA-256 of its lines is not the one that is written down")


def _lines(name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a segment, each without its line feed."""
    rest: list[bytes] = []
    waiting = 0
    for chunk in chunks:
        lines = chunk.split(b"\n")
        rest.append(lines[0])
        waiting += len(lines[0])
        if waiting > MAX_LINE_BYTES:
            raise SnapshotError(name, f"a line is longer than {MAX_LINE_BYTES >> 20} MiB")
        if len(lines) > 1:
            yield b"".join(rest)
            yield from lines[1:-1]
            rest, waiting = [lines[-1]], len(lines[-1])
    if waiting:
        raise SnapshotError(name, "its last line has no end")


def decompressed(description: SegmentDescription, data: bytes) -> Iterator[bytes]:
    """Yield the lines in chunks of one MiB, never more than announced. Raises SnapshotError."""
    name = description.name
    if len(data) != description.file_bytes or hashlib.sha256(data).hexdigest() != description.file_sha256:
        raise SnapshotError(name, "it was changed: its SHA-256 is not the one that is written down")
    if description.bytes > LIMIT_BYTES:
        raise SnapshotError(name, f"it announces more than {LIMIT_BYTES >> 20} MiB of lines")
    yield from unpacked(name, data, description.bytes)


def unpacked(name: str, data: bytes, limit: int) -> Iterator[bytes]:
    """Decompress one whole zstd frame in chunks of at most one MiB. Raises SnapshotError beyond `limit` bytes."""
    reader = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    left = limit
    try:
        chunk = reader.decompress(data, _CHUNK_BYTES)
        while True:
            left -= len(chunk)
            if left < 0:
                raise SnapshotError(name, f"it decompresses to more than the {limit} bytes that it announces")
            if chunk:
                yield chunk
            if reader.eof or (not chunk and reader.needs_input):
                break
            chunk = reader.decompress(b"", _CHUNK_BYTES)
    except zstd.ZstdError as error:
        raise SnapshotError(name, f"it is not a zstd frame that can be read ({error})") from error
    if not reader.eof or reader.unused_data:
        raise SnapshotError(name, "its zstd frame is cut short or followed by more")


def check_chain(descriptions: Iterable[SegmentDescription], epoch: int, partitions: int) -> tuple[int, ...]:
    """Check that each partition's segments follow without a gap; return the last sequence of each, 0 for none.

    Segments of different partitions may come in any order. A partition may begin behind its first sequence, if its
    first segment names no previous one. Raises SnapshotError with the first segment out of place.
    """
    ends: list[SegmentDescription | None] = [None] * partitions
    for description in descriptions:
        if description.epoch != epoch or description.partition >= partitions:
            raise SnapshotError(description.name, f"it is of another log (epoch {description.epoch})")
        before = ends[description.partition]
        if problem := broken_link(before, description):
            raise SnapshotError(description.name, problem)
        ends[description.partition] = description
    return tuple(0 if end is None else end.last for end in ends)


def broken_link(before: SegmentDescription | None, description: SegmentDescription) -> str:
    """Return why a segment does not follow the previous one (None: it is the first); empty when it does."""
    if description.last - description.first + 1 != description.commits:
        return f"it cannot have {counted(description.commits, 'commit')}"
    if before is None:
        return "the segment before it is not the one it names" if description.previous else ""
    if description.first > before.last + 1:
        return "the segment before it is missing"
    if description.first < before.last + 1 or description.previous != before.sha256:
        return "the segment before it is not the one it names"
    return ""
