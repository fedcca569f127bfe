"""A commit as one line of JSON, and back: the body of its message byte for byte.

    {"commit":{…},"sequence":812,"stored_at":"2026-11-23T02:16:40.7155Z","subject":"run.0b9f…","trace":"00-…"}

`commit` is the message's body, decompressed; `subject` is what follows the partition; `trace` is there when the
commit has one. What is in the log and is no JSON object is kept as it is, in base64, as `unreadable` instead of
`commit`, with the `encoding` that its header said.
"""

from __future__ import annotations

import binascii
import sys
from base64 import b64decode, b64encode
from datetime import datetime
from typing import Annotated

import msgspec
import orjson

from runstream.codec import COMPRESS_FROM_BYTES, ENCODING_HEADER, ID_HEADER, MAX_BODY_BYTES, TRACE_HEADER, plain_body
from runstream.commits import Position
from runstream.errors import BadRequestError
from runstream.events.registry import EVENT_TYPES
from runstream.glance import id_of
from runstream.ids import derived_id
from runstream.log.loading import Load
from runstream.log.port import RawMessage
from runstream.snapshots.errors import SnapshotError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_LINE_BYTES = MAX_BODY_BYTES * 4 // 3 + 4096
_LONG_BYTES = 1 << 20
_MAX_VALUES = 1_000_000
"""In a line of more than 1 MiB: JSON could make a hundred bytes of memory from one of text."""
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
    """The line, with its line feed, and the types of its events; None for a body that is no JSON object."""
    begin, types, end = _body(message)
    trace = message.headers.get(TRACE_HEADER) if message.headers else None
    at = orjson.dumps(message.stored_at, option=orjson.OPT_UTC_Z)
    subject = orjson.dumps(message.subject.split(".", 4)[-1])
    if trace:
        end = b',"trace":' + orjson.dumps(trace) + end
    line = b'{%b"sequence":%d,"stored_at":%b,"subject":%b%b}\n' % (begin, message.position.sequence, at, subject, end)
    return line, types


def content_of(message: RawMessage) -> tuple[bytes, list[str] | None]:
    """What its line says apart from where and when it was stored, and the types of its events as `line_of` gives them.

    It is the same for a commit in the log and for the one that was read from a segment.
    """
    begin, types, end = _body(message)
    trace = message.headers.get(TRACE_HEADER, "") if message.headers else ""
    subject = message.subject.split(".", 4)[-1]
    return b"%b%b %b%b" % (begin, subject.encode("utf-8", "surrogatepass"), trace.encode(), end), types


def _body(message: RawMessage) -> tuple[bytes, list[str] | None, bytes]:
    """What a line begins with, the types of the events, and what it ends with."""
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
    """The types of a message's events, as segments count them; None when its body is no JSON object."""
    return _body(message)[1]


def _as_it_is(message: RawMessage) -> tuple[bytes, None, bytes]:
    encoding = message.headers.get(ENCODING_HEADER, "") if message.headers else ""
    begin = b'"encoding":' + orjson.dumps(encoding) + b"," if encoding else b""
    return begin, None, b',"unreadable":"' + b64encode(message.data) + b'"'


def read_line(line: bytes, prefix: str, epoch: int, partition: int, part: str, number: int) -> RawMessage:
    """The message that a line stands for; `prefix` goes before its subject. Raises SnapshotError naming the line."""
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
    """The message as it goes into a log again: under the id of its commit, or one of its own when it is none."""
    commit_id = id_of(message) or derived_id("loaded", message.subject, str(message.position.sequence))
    return Load(message.subject, *wire_form(message, commit_id))


def wire_form(message: RawMessage, commit_id: str) -> tuple[bytes, dict[str, str]]:
    """Body and headers with which a message that was read goes into a log again, as `runstream.codec` writes them."""
    headers = {ID_HEADER: commit_id, **message.headers}
    if len(message.data) <= COMPRESS_FROM_BYTES or ENCODING_HEADER in headers:
        return message.data, headers
    return zstd.compress(message.data), {**headers, ENCODING_HEADER: "zstd"}
