"""One request to the JetStream API, its answer or a typed error."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client

from runstream.errors import InternalError
from runstream.jetstream.leaving import answers_of

REQUEST_SECONDS = 5.0
FIRST_SECONDS = 1.5
"""How long the first answer to a question is waited for that can be asked again."""
_READS = ("INFO", "STREAM.INFO.", "STREAM.MSG.GET.", "STREAM.NAMES", "CONSUMER.INFO.", "CONSUMER.NAMES.")
NO_MESSAGE = 10037
STREAM_NOT_FOUND = 10059
STREAM_DIFFERS = 10058
WRONG_SEQUENCE = frozenset({10071, 10164})
"""The expected sequence is not the last one; or another message that expects the same is under way."""
_NOT_NOW = frozenset({10004, 10005, 10008, 10009, 10118})
"""Not enabled yet, too few servers, temporarily unavailable, no leader, stream offline: asking later may help."""
STORE_FULL = frozenset({10002, 10023, 10047, 10077})
"""A limit of the account or of the server is reached, or the store cannot be written."""


class UnavailableError(InternalError):
    """JetStream does not answer now; it may do so later."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(
            f"NATS JetStream cannot be reached: {why}",
            code="logUnreachable",
            details={"request": what},
            hint="is NATS running, and reachable at its URL? `runstream doctor` tells",
        )


class StoreFullError(UnavailableError):
    """NATS has no room for a message."""

    def __init__(self, what: str, why: str, *, uncertain: bool = False) -> None:
        super().__init__(what, why)
        self.args = (self.message,) = (f"the store of NATS takes no more, so {what} was not stored: {why}",)
        self.code = "notStored"
        self.details = {"store": "nats", "uncertain": uncertain}
        self.hint = (
            "free space where NATS keeps its store, or raise max_file_store of the server or the account; then restart "
            "that server, which refuses writes until it is (an embedded one is restarted by itself). See doctor"
        )


class ApiError(InternalError):
    """JetStream refused a request; `number` is its error code."""

    def __init__(self, what: str, number: int, description: str) -> None:
        super().__init__(
            f"NATS JetStream refused {what}: {description}", code="jetStreamRefused", details={"number": number}
        )
        self.number = number


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message as it is in a stream."""

    subject: str
    sequence: int
    headers: dict[str, str]
    data: bytes
    time: datetime


async def request(
    nc: Client, subject: str, body: Mapping[str, object] | None = None, *, seconds: float = REQUEST_SECONDS
) -> dict[str, Any]:
    """The answer of `$JS.API.<subject>`. Raises UnavailableError, or ApiError when it was refused.

    What only reads is asked a second time when no answer comes: answers get lost.
    """
    payload = b"" if body is None else orjson.dumps(body)
    if subject.startswith(_READS) and seconds > FIRST_SECONDS:
        try:
            return await _ask(nc, f"$JS.API.{subject}", payload, None, FIRST_SECONDS)
        except UnavailableError:
            seconds -= FIRST_SECONDS
    return await _ask(nc, f"$JS.API.{subject}", payload, None, seconds)


async def publish(
    nc: Client, subject: str, data: bytes, headers: dict[str, str], *, seconds: float = REQUEST_SECONDS
) -> int:
    """Store a message and return its sequence. Raises UnavailableError, or ApiError when it was refused."""
    sequence: int = (await _ask(nc, subject, data, headers, seconds))["seq"]
    return sequence


async def _ask(
    nc: Client, subject: str, payload: bytes, headers: dict[str, str] | None, seconds: float
) -> dict[str, Any]:
    if not nc.is_connected:
        # It would be kept and sent after a reconnect, when nobody waits for it any more.
        raise UnavailableError(subject, "there is no connection")
    answers, loop = answers_of(nc), asyncio.get_running_loop()
    what, begun = kind_of(subject), loop.time()
    asking = asyncio.ensure_future(nc.request(subject, payload, timeout=seconds, headers=headers))
    try:
        # Not awaited directly: it is a `wait_for`, which in Python 3.11 swallows a cancellation that comes together
        # with the answer.
        await asyncio.wait({asking})
        message = asking.result()
    except (nats.errors.Error, OSError) as error:
        answers.unanswered(what, loop.time() - begun, str(error) or type(error).__name__)
        raise UnavailableError(subject, str(error) or type(error).__name__) from error
    finally:
        asking.cancel()
    answer: dict[str, Any] = orjson.loads(message.data)
    error_data = answer.get("error")
    if error_data is None:
        answers.answered(what)
        if not subject.startswith("$JS."):
            answers.stored()
        return answer
    number, description = int(error_data.get("err_code", 0)), str(error_data.get("description", ""))
    if number in _NOT_NOW:
        answers.unanswered(what, loop.time() - begun, description)
        raise UnavailableError(subject, description)
    answers.answered(what)
    if number in STORE_FULL:
        answers.full = description
        raise StoreFullError(subject, description)
    raise ApiError(subject, number, description)


def kind_of(subject: str) -> str:
    """Return what requests have in common that one leader answers: a stream's API, a bucket, a partition of a log."""
    tokens = subject.split(".")
    if subject.startswith("$JS.API."):
        return tokens[4 if tokens[2] == "CONSUMER" else -1] if len(tokens) > 4 else subject
    return ".".join(tokens[:2] if subject.startswith("$KV.") else tokens[:4])


async def last_message(
    nc: Client, stream: str, subject: str, *, seconds: float = REQUEST_SECONDS
) -> StreamMessage | None:
    """The last message on a subject (wildcards allowed) as the stream's leader knows it; None when there is none."""
    return await _message(nc, stream, {"last_by_subj": subject}, seconds)


async def next_message(nc: Client, stream: str, subject: str, after: int) -> StreamMessage | None:
    """The first message on a subject behind a sequence, from the leader; None when there is none."""
    return await _message(nc, stream, {"seq": after + 1, "next_by_subj": subject}, REQUEST_SECONDS)


async def _message(nc: Client, stream: str, body: Mapping[str, object], seconds: float) -> StreamMessage | None:
    try:
        answer = await request(nc, f"STREAM.MSG.GET.{stream}", body, seconds=seconds)
    except ApiError as error:
        if error.number == NO_MESSAGE:
            return None
        raise
    found = answer["message"]
    return StreamMessage(
        subject=found["subject"],
        sequence=found["seq"],
        headers=parse_headers(base64.b64decode(found.get("hdrs", ""))),
        data=base64.b64decode(found.get("data", "")),
        time=datetime.fromisoformat(found["time"]),
    )


def parse_headers(raw: bytes) -> dict[str, str]:
    """The headers of a stored message (`NATS/1.0`, then one a line)."""
    return header_lines(raw.partition(b"\r\n")[2])


def header_lines(raw: bytes) -> dict[str, str]:
    """The headers of these lines; a line without a colon is none."""
    headers: dict[str, str] = {}
    for line in raw.decode(errors="replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers
