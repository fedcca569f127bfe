"""Encodes commits as messages of the log, and decodes them, whatever version wrote them (`docs/formats/log.md`).

The encoding is canonical: equal commits give equal bytes. Decoding validates strictly, and upcasts events to the
current versions. A message that cannot be read is a BadRequestError with subject, position and path, so that a worker
can park it and continue.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache, reduce
from operator import or_
from typing import Annotated, Generic, Protocol, TypeVar

import msgspec
import orjson
from msgspec.structs import astuple

from runstream.commits import DecodedCommit, NewCommit, Position, StoredCommit
from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.events.registry import EVENT_TYPES
from runstream.subjects import is_lost, parse_subject
from runstream.upcasters import UPCASTERS, EventData, Upcasters, upcast

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

ID_HEADER = "Nats-Msg-Id"
TRACE_HEADER = "traceparent"
ENCODING_HEADER = "Runstream-Encoding"
COMPRESS_FROM_BYTES = 64 << 10
MAX_BODY_BYTES = 64 << 20
"""Maximum size of a decompressed body, in bytes; a larger one is refused while it is being decompressed."""

_parse_subject = lru_cache(maxsize=4096)(parse_subject)
_NO_OFFSET = timedelta(0)
_PATH = re.compile(r"`\$([^`]*)`")


class Message(Protocol):
    """The parts of a message that decoding needs."""

    @property
    def subject(self) -> str: ...  # noqa: D102
    @property
    def position(self) -> Position: ...  # noqa: D102
    @property
    def data(self) -> bytes: ...  # noqa: D102
    @property
    def headers(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def stored_at(self) -> datetime: ...  # noqa: D102


Written = TypeVar("Written")


class _Body(msgspec.Struct, Generic[Written], forbid_unknown_fields=True, gc=False):
    id: str
    aggregate: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    actor: str
    cause: str
    events: Annotated[tuple[Written, ...], msgspec.Meta(min_length=1)]


class _EventCodec:
    """The wire format of one event type: a twin of the event with its type and version, strict in numbers and times.

    Events are not decoded directly. They would need the tag, a field for the version and the strict types themselves;
    then the API would show type and version among an event's data, and the released schemas would change. Rebuilding an
    event from its twin takes a sixth of the time of decoding it.
    """

    def __init__(self, event: type[DomainEvent]) -> None:
        fields = msgspec.structs.fields(event)
        if {"type", "version"} & {field.name for field in fields}:
            raise TypeError(f"{event.__name__} has a field that the format of events uses itself")
        self.cls = event
        self.moments = tuple(field.name for field in fields if field.type in (datetime, datetime | None))
        """The fields that are times, which may be None."""
        self.wire: type[msgspec.Struct] = msgspec.defstruct(
            event.__name__,
            [("version", _exactly(event.SCHEMA_VERSION)), *((f.name, _STRICT.get(f.type, f.type)) for f in fields)],
            tag_field="type",
            tag=event.__name__,
            forbid_unknown_fields=True,
            gc=False,
        )

    def written(self, event: DomainEvent) -> msgspec.Struct:
        for name in self.moments:
            _require_utc(getattr(event, name), f"{self.cls.__name__}.{name}")
        return self.wire(self.cls.SCHEMA_VERSION, *astuple(event))


def _exactly(version: int) -> object:
    return Annotated[int, msgspec.Meta(ge=version, le=version)]


_MAX_INT = (1 << 63) - 1
_INT = Annotated[int, msgspec.Meta(ge=-_MAX_INT, le=_MAX_INT)]
_MOMENT = Annotated[datetime, msgspec.Meta(tz=True)]
_STRICT: dict[object, object] = {int: _INT, datetime: _MOMENT, datetime | None: _MOMENT | None}
"""Decode fields of these types: numbers that other programs can read, times with a time zone."""
_CODECS: dict[str, _EventCodec] = {name: _EventCodec(cls) for name, cls in EVENT_TYPES.items()}
_OF_WIRE: dict[type[msgspec.Struct], type[DomainEvent]] = {codec.wire: codec.cls for codec in _CODECS.values()}
_encode = msgspec.json.Encoder(order="sorted").encode
_decode_current = msgspec.json.Decoder(_Body[reduce(or_, _OF_WIRE)]).decode  # type: ignore[misc]


def encode(commit: NewCommit) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of the commit's message. Raises BadRequestError for a time that is not in UTC."""
    _require_utc(commit.time, "time")
    events = tuple([_CODECS[type(event).__name__].written(event) for event in commit.events])
    body = _encode(
        _Body(commit.id, commit.address.aggregate, commit.version, commit.time, commit.actor, commit.cause, events)
    )
    headers = {ID_HEADER: commit.id}
    if commit.trace:
        headers[TRACE_HEADER] = commit.trace
    if len(body) > COMPRESS_FROM_BYTES:
        body = zstd.compress(body)
        headers[ENCODING_HEADER] = "zstd"
    return body, headers


def decode(message: Message, upcasters: Upcasters = UPCASTERS) -> StoredCommit:
    """Decode a message of the log. Raises BadRequestError with the path at which it cannot be read."""
    return _decode(message, upcasters)[0]


def decode_with_types(message: Message) -> tuple[StoredCommit, list[str]]:
    """Decode a message; return also the types of its events as they were written, before upcasting."""
    stored, written = _decode(message, UPCASTERS)
    return stored, [str(event["type"]) if isinstance(event, dict) else type(event).__name__ for event in written]


def _decode(message: Message, upcasters: Upcasters) -> tuple[StoredCommit, tuple[EventData | msgspec.Struct, ...]]:
    """Return the commit and its events as written: typed if they have the current version, otherwise as JSON."""
    if is_lost(message.subject):
        raise _lost(message)
    try:
        address = _parse_subject(message.subject)
        plain = plain_body(message)
        try:  # Nearly every commit has only events of current versions, which are decoded in one pass.
            current = _decode_current(plain)
        except (ValueError, RecursionError):
            current = None
        if current is not None and current.version <= _MAX_INT:
            events = tuple([_OF_WIRE[type(wire)](*astuple(wire)[1:]) for wire in current.events])
            body = current
        else:
            body, events = _decode_any(plain, upcasters)
        if body.aggregate != address.aggregate:
            raise BadRequestError(
                f"its aggregate {body.aggregate[:200]!r} is not that of its subject", code="unreadableCommit"
            )
    except (orjson.JSONDecodeError, msgspec.ValidationError, BadRequestError) as error:
        raise _unreadable(message, error) from error
    trace = message.headers.get(TRACE_HEADER, "") if message.headers else ""
    commit = DecodedCommit(body.id, address, body.version, body.time, body.actor, body.cause, events, trace)
    return StoredCommit(commit, message.position, message.stored_at), body.events


def _decode_any(plain: bytes, upcasters: Upcasters) -> tuple[_Body[EventData], tuple[DomainEvent, ...]]:
    """Decode a body whose events may have earlier versions. Raises ValidationError and BadRequestError."""
    body = msgspec.convert(orjson.loads(plain), _Body[EventData])
    events: list[DomainEvent] = []
    for index, data in enumerate(body.events):
        try:
            if "type" not in data or "version" not in data:
                raise BadRequestError(f"no type and version - at `$.events[{index}]`", code="unreadableCommit")
            events.extend(_current(later) for later in upcast(data, upcasters))
        except msgspec.ValidationError as error:
            raise BadRequestError(_under(str(error), index), code="unreadableCommit") from error
        except (KeyError, TypeError, AttributeError) as error:  # an upcaster found something else than it reads
            what = f"{str(data['type'])[:80]} is not as its version says: {type(error).__name__}: {str(error)[:200]}"
            raise BadRequestError(f"{what} - at `$.events[{index}]`", code="unreadableCommit") from error
    return body, tuple(events)


def _current(data: EventData) -> DomainEvent:
    """Return an upcast event as its type. Raises ValidationError for an unknown one."""
    kind, version = data["type"], data["version"]
    codec = _CODECS.get(kind) if isinstance(kind, str) else None
    if codec is None:
        raise msgspec.ValidationError(f"Unknown event type {str(kind)[:80]!r}")
    if version == codec.cls.SCHEMA_VERSION:
        return codec.cls(*astuple(msgspec.convert(data, codec.wire))[1:])
    if isinstance(version, int) and version > codec.cls.SCHEMA_VERSION:
        raise msgspec.ValidationError(
            f"{kind} has schema version {version}, this Runstream reads up to {codec.cls.SCHEMA_VERSION}: it is newer"
        )
    raise msgspec.ValidationError(f"{kind} has schema version {str(version)[:20]!r}, which this version cannot read")


def plain_body(message: Message) -> bytes:
    """Return the body as JSON, decompressed if its header says so. Raises BadRequestError."""
    encoding = message.headers.get(ENCODING_HEADER) if message.headers else None
    if encoding is None:
        return message.data
    if encoding != "zstd":
        raise BadRequestError(f"its body is encoded as {encoding[:40]!r}", code="unreadableCommit")
    reader = zstd.ZstdDecompressor()
    try:
        plain = reader.decompress(message.data, MAX_BODY_BYTES)
    except zstd.ZstdError as error:
        raise BadRequestError("its zstd body is corrupt", code="unreadableCommit") from error
    if not reader.eof or reader.unused_data:
        what = (
            f"larger than {MAX_BODY_BYTES >> 20} MiB"
            if len(plain) == MAX_BODY_BYTES and not reader.eof
            else "cut short or followed by more"
        )
        raise BadRequestError(f"its zstd body is {what}", code="unreadableCommit")
    return plain


def _under(text: str, index: int) -> str:
    """Return the validation message of an event with the path from the root of the body."""
    inside = f"`$.events[{index}]"
    return _PATH.sub(rf"{inside}\1`", text) if _PATH.search(text) else f"{text} - at {inside}`"


def _lost(message: Message) -> BadRequestError:
    at = message.position
    here = f"{at.epoch}/{at.partition}/{at.sequence}"
    return BadRequestError(
        f"position {here} is no longer in the log: NATS has counted a commit there, but does not have it",
        code="lostCommit",
        details={"subject": message.subject, "partition": at.partition, "sequence": at.sequence, "epoch": at.epoch},
        hint=f"was its disk full? When the commit is not missed: runstream parked skip {here} --reason …",
    )


def _unreadable(message: Message, error: Exception) -> BadRequestError:
    at = message.position
    what = f"not JSON: {error}" if isinstance(error, orjson.JSONDecodeError) else str(error)
    return BadRequestError(
        f"the message at {at.epoch}:{at.partition}:{at.sequence} of {message.subject} cannot be read: {what}",
        code="unreadableCommit",
        details={"subject": message.subject, "partition": at.partition, "sequence": at.sequence, "epoch": at.epoch},
        hint="was it written by a newer Runstream, or by something else? `runstream parked list` shows what waits",
    )


def _require_utc(moment: object, what: str) -> None:
    if isinstance(moment, datetime) and moment.utcoffset() != _NO_OFFSET:
        raise BadRequestError(f"{what} {moment.isoformat()} is not in UTC", code="timeNotUtc")
