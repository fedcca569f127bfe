"""Reads single fields of any message of the log, even if it is not a commit, or one of a newer version.

`runstream.codec` decodes commits and refuses everything else. These functions refuse nothing, because their callers
have to handle every message.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec

from runstream.codec import Message, plain_body
from runstream.errors import BadRequestError


class _Time(msgspec.Struct, gc=False):
    time: datetime


class _Version(msgspec.Struct, gc=False):
    version: int


class _Id(msgspec.Struct, gc=False):
    id: str


T = TypeVar("T")


def body_of(message: Message) -> bytes:
    """Return the decompressed body, or the stored one if it cannot be decompressed."""
    try:
        return plain_body(message)
    except BadRequestError:
        return message.data


def time_of(message: Message) -> datetime | None:
    """Return the time of the commit, with its zone; None if the message has none."""
    made = _read(message, _Time)
    return None if made is None or made.time.tzinfo is None else made.time


def made_after(message: Message, moment: datetime) -> bool:
    """Return whether the commit was made after a time; False for a message without one."""
    made = time_of(message)
    return made is not None and made > moment


def version_of(message: Message) -> int | None:
    """Return the version of the commit's aggregate; None if the message has none."""
    found = _read(message, _Version)
    return None if found is None else found.version


def id_of(message: Message) -> str | None:
    """Return the commit's id; None if the message has none."""
    found = _read(message, _Id)
    return None if found is None else found.id or None


def _read(message: Message, kind: type[T]) -> T | None:
    """Decode a part of a body; None if it does not have it, is no UTF-8, or is nested too deeply."""
    try:
        return msgspec.json.decode(body_of(message), type=kind)
    except (ValueError, RecursionError):
        return None
