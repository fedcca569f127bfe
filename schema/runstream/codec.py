"""How a commit is written in a message of the log, and read back for ever (`docs/formats/log.md`).

What is written is canonical: equal commits give equal bytes. What is read is checked strictly, upcast to today's
events and typed; whatever cannot be read is a BadRequestError that names subject, position and path, so that a
worker can park it and go on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Protocol, get_type_hints

import msgspec
import orjson

from runstream.commits import Commit, NewCommit, Position, StoredCommit
from runstream.errors import BadRequestError
from runstream.events.event import Event
from runstream.events.registry import EVENT_TYPES
from runstream.subjects import parse_subject
from runstream.upcasters import UPCASTERS, EventData, Upcasters, upcast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ID_HEADER = "Nats-Msg-Id"
TRACE_HEADER = "traceparent"
ENCODING_HEADER = "Runstream-Encoding"
COMPRESS_FROM_BYTES = 64 << 10
MAX_BODY_BYTES = 64 << 20
"""What a compressed body may become: more is refused while it is being read, not after."""

_parse_subject = lru_cache(maxsize=4096)(parse_subject)
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_UTC_Z
_NO_OFFSET = timedelta(0)
_PATH = re.compile(r"`\$([^`]*)`")


class Message(Protocol):
    """What is needed of a message to read it."""

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


class _Body(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    aggregate: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    actor: str
    cause: str
    events: Annotated[list[EventData], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class _EventCodec:
    """What is known of one event type: made once, used for each event."""

    cls: type[Event]
    names: tuple[str, ...]
    moments: tuple[str, ...]
    """The fields that are times; None is possible in them."""

    @classmethod
    def of(cls, event: type[Event]) -> _EventCodec:
        names = tuple(field.name for field in fields(event))  # type: ignore[arg-type]
        if {"type", "version"} & set(names):
            raise TypeError(f"{event.__name__} has a field that the format of events uses itself")
        hints = get_type_hints(event)
        moments = tuple(n for n in names if hints[n] in (datetime, datetime | None))
        return cls(event, names, moments)

    def write(self, event: Event) -> EventData:
        data: EventData = {name: getattr(event, name) for name in self.names}
        for name in self.moments:
            _require_utc(data[name], f"{self.cls.__name__}.{name}")
        data["type"] = self.cls.__name__
        data["version"] = self.cls.SCHEMA_VERSION
        return data

    def read(self, data: EventData) -> Event:
        event = msgspec.convert(data, self.cls)
        if len(data) != len(self.names) + 2:
            unknown = sorted(data.keys() - {*self.names, "type", "version"})
            if unknown:
                raise msgspec.ValidationError(f"Object contains unknown field `{unknown[0]}`")
        for name in self.moments:
            moment = getattr(event, name)
            if moment is not None and moment.tzinfo is None:
                raise msgspec.ValidationError(f"Expected `datetime` with a timezone component - at `$.{name}`")
        return event


_CODECS: dict[str, _EventCodec] = {name: _EventCodec.of(cls) for name, cls in EVENT_TYPES.items()}


def encode(commit: NewCommit) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of the commit's message. Raises BadRequestError for a time that is not in UTC."""
    _require_utc(commit.time, "time")
    body = orjson.dumps(
        {
            "id": commit.id,
            "aggregate": commit.address.aggregate,
            "version": commit.version,
            "time": commit.time,
            "actor": commit.actor,
            "cause": commit.cause,
            "events": [_CODECS[type(event).__name__].write(event) for event in commit.events],
        },
        default=_fields_of,
        option=_OPTIONS,
    )
    headers = {ID_HEADER: commit.id}
    if commit.trace:
        headers[TRACE_HEADER] = commit.trace
    if len(body) > COMPRESS_FROM_BYTES:
        body = zstd.compress(body)
        headers[ENCODING_HEADER] = "zstd"
    return body, headers


def decode(message: Message, upcasters: Upcasters = UPCASTERS) -> StoredCommit:
    """The commit that a message of the log says. Raises BadRequestError that says where it cannot be read."""
    try:
        address = _parse_subject(message.subject)
        body = msgspec.convert(orjson.loads(plain_body(message)), _Body)
        if body.aggregate != address.aggregate:
            raise BadRequestError(f"it says it is of {body.aggregate[:200]!r}", code="unreadableCommit")
        events: list[Event] = []
        for index, data in enumerate(body.events):
            _read_event(data, index, events, upcasters)
    except (orjson.JSONDecodeError, msgspec.ValidationError, BadRequestError) as error:
        raise _unreadable(message, error) from error
    trace = message.headers.get(TRACE_HEADER, "") if message.headers else ""
    commit = Commit(body.id, address, body.version, body.time, body.actor, body.cause, tuple(events), trace)
    return StoredCommit(commit, message.position, message.stored_at)


def _read_event(data: EventData, index: int, events: list[Event], upcasters: Upcasters) -> None:
    try:
        kind = data["type"]
        codec = _CODECS.get(kind) if type(kind) is str else None
        if codec is not None and data["version"] == codec.cls.SCHEMA_VERSION:
            events.append(codec.read(data))
        else:
            events.extend(_current(later) for later in upcast(data, upcasters))
    except KeyError as error:
        raise BadRequestError(f"no type and version - at `$.events[{index}]`", code="unreadableCommit") from error
    except msgspec.ValidationError as error:
        raise BadRequestError(_under(str(error), index), code="unreadableCommit") from error


def _current(data: EventData) -> Event:
    """An upcast event, typed. Raises ValidationError for what today's code does not know."""
    kind, version = data["type"], data["version"]
    codec = _CODECS.get(kind) if isinstance(kind, str) else None
    if codec is None:
        raise msgspec.ValidationError(f"Unknown event type {str(kind)[:80]!r}")
    if version == codec.cls.SCHEMA_VERSION:
        return codec.read(data)
    if isinstance(version, int) and version > codec.cls.SCHEMA_VERSION:
        raise msgspec.ValidationError(
            f"{kind} has schema version {version}, this Runstream reads up to {codec.cls.SCHEMA_VERSION}: it is newer"
        )
    raise msgspec.ValidationError(f"{kind} has schema version {str(version)[:20]!r}, which nothing here reads")


def plain_body(message: Message) -> bytes:
    """The body as JSON, decompressed where a header says that it is compressed. Raises BadRequestError."""
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
    """A validation message of one event with the path from the top of the body."""
    inside = f"`$.events[{index}]"
    return _PATH.sub(rf"{inside}\1`", text) if _PATH.search(text) else f"{text} - at {inside}`"


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


def _fields_of(value: object) -> EventData:
    """A nested dataclass as the dict that is written. Raises TypeError for anything else."""
    return {field.name: getattr(value, field.name) for field in fields(value)}  # type: ignore[arg-type]
