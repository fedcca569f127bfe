"""Reads single fields of any message of the log, even if it is not a commit, or one of a newer version.
`runstream.codec` decodes commits and refuses everything else. These functions refuse nothing, because their callers
have to handle every message.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from runstream.codec import Message, plain_body
from runstream.errors import BadRequestError


class _Time(msgspec.Struct, gc=False):
    time: datetime


class _Version(msgspec.Struct, gc=False):
    version: int


class _Id(msgspec.Struct, gc=False):
    id: str


_read_time = msgspec.json.Decoder(_Time).decode
_read_version = msgspec.json.Decoder(_Version).decode
_read_id = msgspec.json.Decoder(_Id).decode
_NOT_SAID = (ValueError, RecursionError)
"""The decoder's errors for a wrong type, for invalid UTF-8, and for deep nesting."""


def body_of(message: Message) -> bytes:
    """Return the decompressed body, or the stored one if it cannot be decompressed."""
    try:
        return plain_body(message)
    except BadRequestError:
        return message.data


def time_of(message: Message) -> datetime | None:
    """Return the time of the commit, with its zone; None if the message has none."""
    try:
        made = _read_time(body_of(message)).time
    except _NOT_SAID:
        return None
    return None if made.tzinfo is None else made


def made_after(message: Message, moment: datetime) -> bool:
    """Return whether the commit was made after a time; False for a message without one."""
    made = time_of(message)
    return made is not None and made > moment


def version_of(message: Message) -> int | None:
    """Return the version of the commit's aggregate; None if the message has none."""
    try:
        return _read_version(body_of(message)).version
    except _NOT_SAID:
        return None


def id_of(message: Message) -> str | None:
    """Return the commit's id; None if the message has none."""
    try:
        return _read_id(body_of(message)).id or None
    except _NOT_SAID:
        return None
