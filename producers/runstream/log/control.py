"""The KV bucket `<namespace>_control`: what is true for the whole deployment, a key for each fact."""

from __future__ import annotations

from dataclasses import dataclass

from nats.aio.client import Client

from runstream.jetstream.api import STREAM_NOT_FOUND, WRONG_SEQUENCE, ApiError, last_message, publish


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key says."""

    data: bytes
    """Empty when it says nothing."""
    sequence: int
    """What a change is based on; 0 when nothing was ever said."""


async def read_key(nc: Client, namespace: str, key: str) -> Entry:
    """What the key says now; nothing, too, when there is no bucket. Raises UnavailableError."""
    bucket = f"{namespace}_control"
    try:
        found = await last_message(nc, f"KV_{bucket}", f"$KV.{bucket}.{key}")
    except ApiError as error:
        if error.number == STREAM_NOT_FOUND:
            return Entry(b"", 0)
        raise
    return Entry(found.data, found.sequence) if found is not None else Entry(b"", 0)


async def write_key(nc: Client, namespace: str, key: str, data: bytes, *, after: int | None = None) -> bool:
    """Say something; with `after` only if the key has not changed since that sequence; else False.

    The bucket has to be there. Raises UnavailableError.
    """
    headers = {} if after is None else {"Nats-Expected-Last-Subject-Sequence": str(after)}
    try:
        await publish(nc, f"$KV.{namespace}_control.{key}", data, headers)
    except ApiError as error:
        if error.number in WRONG_SEQUENCE:
            return False
        raise
    return True
