"""What a message of the log says of itself, as far as it can be told: it may be no commit, or one of a newer version.

`runstream.codec` reads commits and refuses all else. Here nothing is refused: who asks has to go on with any message.
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
"""What the decoder raises for other things than it looks for, for what is no UTF-8, and for what is nested too deep."""


def body_of(message: Message) -> bytes:
    """The body as JSON where it is a commit's; as it was stored where that cannot be decompressed."""
    try:
        return plain_body(message)
    except BadRequestError:
        return message.data


def time_of(message: Message) -> datetime | None:
    """When the commit was made, with its zone; None when the message does not say it."""
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
    """The version of its aggregate that the commit makes; None when the message does not say it."""
    try:
        return _read_version(body_of(message)).version
    except _NOT_SAID:
        return None


def id_of(message: Message) -> str | None:
    """The commit's id; None when the message does not say it."""
    try:
        return _read_id(body_of(message)).id or None
    except _NOT_SAID:
        return None
