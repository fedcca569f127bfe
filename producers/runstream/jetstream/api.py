"""Requests to the JetStream API, each with its answer or a typed error; streams, buckets and the store's use."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import nats.errors
import nats.js.errors
import orjson
from nats.aio.client import Client

from runstream.errors import InternalError
from runstream.jetstream.failover import answers_of

T = TypeVar("T")
REQUEST_SECONDS = 5.0
AGAIN_SECONDS = 0.5
"""Time without an answer after which a read-only request is sent again, in seconds."""
_REFUSED_SECONDS = 1.5
"""Time for which a request that the server could not answer ("no leader") is sent again, in seconds."""
_RECONNECT_SECONDS = 0.05
_READS = ("INFO", "STREAM.INFO.", "STREAM.MSG.GET.", "STREAM.NAMES", "CONSUMER.INFO.", "CONSUMER.NAMES.")
NO_MESSAGE = 10037
STREAM_NOT_FOUND = 10059
STREAM_DIFFERS = 10058
WRONG_SEQUENCE = frozenset({10071, 10164})
"""The expected sequence is not the last one; or another message that expects the same is in flight."""
NOT_NOW = frozenset(
    {
        *(10004, 10005, 10007, 10008, 10009, 10041, 10076),  # the cluster: incomplete, too few servers, no leader
        *(10118, 10119, 10194, 10195),  # a stream or consumer is offline
        *(10124, 10202, 10226),  # a stream or the cluster is being changed
        *(10158, 10163),  # the message, or one before it on its subject, is in flight
        *(10167, 10210, 10211),  # too many requests or batches at once
    }
)
"""A later request may succeed."""
STORE_FULL = frozenset({10002, 10023, 10028, 10047, 10077})
"""A limit of the account or of the server is reached, or the store cannot be written."""
TOO_LARGE = frozenset({10054, 10097})
"""The message, or its headers, exceed what the stream takes: the same message is refused again."""
_FAULTS = (
    *(nats.errors.BadHeaderError, nats.errors.BadSubjectError, nats.errors.BadSubscriptionError),
    *(nats.errors.BadTimeoutError, nats.errors.InvalidCallbackTypeError, nats.errors.JsonParseError),
    *(nats.errors.MaxPayloadError, nats.errors.MsgAlreadyAckdError, nats.errors.NotJSMessageError),
    *(nats.errors.AuthorizationError, nats.errors.InvalidUserCredentialsError, nats.errors.ServerNotInPoolError),
    *(nats.errors.SecureConnFailedError, nats.errors.SecureConnRequiredError, nats.errors.SecureConnWantedError),
)
"""Errors of the client library that a request or a setting causes: waiting does not repair them."""


class UnavailableError(InternalError):
    """JetStream does not answer now; it may answer later."""

    def __init__(self, what: str, why: str, *, code: str = "logUnreachable") -> None:
        super().__init__(
            f"NATS JetStream cannot be reached: {why}",
            code=code,
            details={"request": what},
            hint="is NATS running, and reachable at its URL? See `runstream doctor`",
        )


FULL_BYTES = 1 << 20
"""A store with less space left is full: a commit may be that large."""


def _full_disk(folder: Path | None) -> str:
    """Describe the disk of a folder; empty for one with room, or without a folder."""
    if folder is None:
        return ""
    free = shutil.disk_usage(folder).free
    return f"the disk of NATS is full ({folder}, {free >> 20} MB left)" if free < FULL_BYTES else ""


class StoreFullError(UnavailableError):
    """The store of NATS has no room for a message."""

    def __init__(
        self, what: str, why: str, *, outcome: str = "", folder: Path | None = None, uncertain: bool = False
    ) -> None:
        """`outcome` says what did not happen; `folder` is that of the server's store, if it is on this machine."""
        super().__init__(what, why)
        full = _full_disk(folder) or f"the store of NATS takes no more ({why})"
        self.args = (self.message,) = (f"{outcome or f'{what} was not stored'}: {full}",)
        self.code = "notStored"
        self.details = {"store": "nats", "uncertain": uncertain}
        self.hint = (
            "free space where NATS keeps its store, or raise max_file_store of the server or the account; then restart "
            "that server, which refuses writes until it is (an embedded one is restarted by itself). See doctor"
        )


class ApiError(InternalError):
    """A request that JetStream refused; `number` is its error code."""

    def __init__(self, what: str, number: int, description: str) -> None:
        super().__init__(
            f"NATS JetStream refused {what}: {description}", code="jetStreamRefused", details={"number": number}
        )
        self.number = number


def is_away(error: BaseException) -> bool:
    """Return whether an error of the client library says that NATS cannot be used now, so that waiting may help."""
    if isinstance(error, nats.js.errors.APIError):
        return error.code == 503 or error.err_code in NOT_NOW
    if isinstance(error, nats.js.errors.Error):
        return isinstance(error, nats.js.errors.NoStreamResponseError | nats.js.errors.TooManyStalledMsgsError)
    return isinstance(error, nats.errors.Error | OSError) and not isinstance(error, _FAULTS)


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message of a stream."""

    subject: str
    sequence: int
    headers: dict[str, str]
    data: bytes
    time: datetime


async def request(
    nc: Client, subject: str, body: Mapping[str, object] | None = None, *, seconds: float = REQUEST_SECONDS
) -> dict[str, Any]:
    """Return the answer of `$JS.API.<subject>`. Raises UnavailableError, ApiError for a refusal.

    A request that only reads is sent again while no answer comes: answers get lost, and a request that finds no leader
    is never answered.
    """
    payload = b"" if body is None else orjson.dumps(body)

    def ask(left: float) -> Awaitable[dict[str, Any]]:
        return _ask(nc, f"$JS.API.{subject}", payload, None, left)

    return await (first_answer(nc, subject, ask, seconds) if subject.startswith(_READS) else ask(seconds))


async def first_answer(
    nc: Client, subject: str, ask: Callable[[float], Awaitable[T]], seconds: float, *, again: float = AGAIN_SECONDS
) -> T:
    """Call `ask` with the remaining seconds, and once more after every `again` seconds; return the first answer.

    Earlier calls stay pending, so a slow server is not asked in vain. Raises UnavailableError after `seconds`, sooner
    if there is no connection or the server goes on to refuse; ApiError at once.
    """
    loop, answers, what = asyncio.get_running_loop(), answers_of(nc), kind_of(f"$JS.API.{subject}")
    begun = sent = loop.time()
    end, patience = begun + seconds, min(_REFUSED_SECONDS, seconds - again)
    pending = {_abandonable(ask(seconds))}
    try:
        while True:
            wait = sent + again - loop.time() if sent + again < end else None
            done, pending = await asyncio.wait(pending, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            now = loop.time()
            for each in done:
                try:
                    return each.result()
                except StoreFullError:
                    raise
                except UnavailableError:
                    if not pending and (now - begun >= patience or not await _connected(nc)):
                        raise
            if not done:
                answers.unanswered(what, now - begun, "no answer")
            if not pending:
                await asyncio.sleep(max(sent + again - now, 0.0))
            if not pending or now >= sent + again:
                sent = loop.time()
                pending.add(_abandonable(ask(end - sent)))
    finally:
        for each in pending:
            each.cancel()


def _abandonable(call: Awaitable[T]) -> asyncio.Future[T]:
    """Start a call; asyncio does not log the error of one that is abandoned."""
    asked = asyncio.ensure_future(call)
    asked.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    return asked


async def _connected(nc: Client) -> bool:
    """Return whether there is a connection; give a change of servers the time that it takes."""
    if not nc.is_connected:
        await asyncio.sleep(_RECONNECT_SECONDS)
    return nc.is_connected


async def publish(
    nc: Client, subject: str, data: bytes, headers: dict[str, str], *, seconds: float = REQUEST_SECONDS
) -> int:
    """Store a message and return its sequence. Raises UnavailableError, ApiError for a refusal."""
    sequence: int = (await _ask(nc, subject, data, headers, seconds))["seq"]
    return sequence


async def _ask(
    nc: Client, subject: str, payload: bytes, headers: dict[str, str] | None, seconds: float
) -> dict[str, Any]:
    if not nc.is_connected:
        # The client library would send it after a reconnect, when its caller has given up.
        raise UnavailableError(subject, "not connected")
    answers, loop = answers_of(nc), asyncio.get_running_loop()
    what, begun = kind_of(subject), loop.time()
    asking = asyncio.ensure_future(nc.request(subject, payload, timeout=seconds, headers=headers))
    try:
        # Not awaited directly: nats-py uses `wait_for`, which in Python 3.11 swallows a cancellation that comes
        # together with the answer.
        await asyncio.wait({asking})
        if asking.cancelled():  # by the client library, when it connects again
            raise nats.errors.ConnectionClosedError
        message = asking.result()
    except (nats.errors.Error, OSError) as error:
        why = str(error) or type(error).__name__
        if not is_away(error):
            raise ApiError(subject, 0, why) from error
        answers.unanswered(what, loop.time() - begun, why)
        raise UnavailableError(subject, why) from error
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
    if number in NOT_NOW:
        answers.unanswered(what, loop.time() - begun, description)
        raise UnavailableError(subject, description)
    answers.answered(what)
    if number in STORE_FULL:
        answers.full = description
        raise StoreFullError(subject, description, folder=answers.folder)
    raise ApiError(subject, number, description)


def kind_of(subject: str) -> str:
    """Return a key for all requests that one leader answers: a stream's API, a bucket, a partition of a log."""
    tokens = subject.split(".")
    if subject.startswith("$JS.API."):
        return tokens[4 if tokens[2] == "CONSUMER" else -1] if len(tokens) > 4 else subject
    return ".".join(tokens[:2] if subject.startswith("$KV.") else tokens[:4])


async def last_message(
    nc: Client, stream: str, subject: str, *, seconds: float = REQUEST_SECONDS
) -> StreamMessage | None:
    """Return the last message on a subject (wildcards allowed), from the stream's leader; None when there is none."""
    return await _message(nc, stream, {"last_by_subj": subject}, seconds)


async def next_message(nc: Client, stream: str, subject: str, after: int) -> StreamMessage | None:
    """Return the first message on a subject behind a sequence, from the leader; None when there is none."""
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
    """Parse the headers of a stored message: `NATS/1.0`, then one on each line."""
    return header_lines(raw.partition(b"\r\n")[2])


def header_lines(raw: bytes) -> dict[str, str]:
    """Parse lines of headers, ignoring lines without a colon."""
    headers: dict[str, str] = {}
    for line in raw.decode(errors="replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


_OWN_HEADERS = frozenset(
    {
        "Nats-Msg-Id",
        "Nats-Batch-Commit",
        "Nats-Batch-Id",
        "Nats-Batch-Sequence",
        "Nats-Expected-Last-Sequence",
        "Nats-Expected-Last-Subject-Sequence",
        "Nats-Expected-Last-Subject-Sequence-Subject",
        "Runstream-Encoding",
        "traceparent",
    }
)
"""Headers of commits."""


def header_text(headers: Mapping[str, str]) -> bytes | None:
    """Return the block of headers of a message; None unless all are those of commits, each on one line."""
    if not headers.keys() <= _OWN_HEADERS:
        return None
    text = "".join([f"{name}: {value.strip()}\r\n" for name, value in headers.items()])
    if text.count("\r") != len(headers) or text.count("\n") != len(headers):
        return None
    return f"NATS/1.0\r\n{text}\r\n".encode()


_CREATE_SECONDS = 15.0


def bucket_config(bucket: str, replicas: int) -> dict[str, object]:
    """Return the stream configuration of a KV bucket, which stores the last value of each key on disk."""
    return {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "storage": "file",
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "discard": "new",
        "deny_delete": True,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }


async def ensure_stream(nc: Client, config: Mapping[str, object]) -> None:
    """Make a stream, unless it exists with these settings; its number of replicas may differ.

    Raises InternalError when it exists with other settings, or the server is too old for them.
    """
    name = str(config["name"])
    try:
        found = (await request(nc, f"STREAM.CREATE.{name}", config, seconds=_CREATE_SECONDS))["config"]
    except ApiError as error:
        if error.number != STREAM_DIFFERS:
            raise
        found = (await request(nc, f"STREAM.INFO.{name}"))["config"]
    wrong = [key for key, value in config.items() if key != "num_replicas" and found.get(key) != value]
    if wrong:
        raise InternalError(
            f"stream {name} on NATS has other settings than Runstream needs: {', '.join(sorted(wrong))}",
            code="weakStream",
            hint="Runstream needs nats-server 2.14 or later, and unchanged streams; see `runstream doctor`",
        )


@dataclass(frozen=True, slots=True)
class StoreUse:
    """The use of a store in bytes, as the account sees it."""

    used: int
    limit: int | None
    """None for an account without a limit. Only the system account knows the server's own limit."""
    free: int | None = None
    """Free bytes on the disk of the store; None when it is on another machine."""

    @property
    def left(self) -> int | None:
        """Bytes that can still be stored, by limit and disk; None where neither is known."""
        known = [] if self.limit is None else [max(self.limit - self.used, 0)]
        return min([*known, *([] if self.free is None else [self.free])], default=None)

    @property
    def full(self) -> bool:
        """True if a commit may be larger than the free space."""
        return self.left is not None and self.left < FULL_BYTES

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" of {self.limit >> 20}"
        left = "no limit" if self.left is None else f"{self.left >> 20} MiB left"
        return f"{self.used >> 20}{limit} MiB used, {left}{' on its disk' if self._short_of_disk else ''}"

    @property
    def _short_of_disk(self) -> bool:
        return self.free is not None and self.left == self.free


async def store_use(nc: Client, folder: Path | None = None, *, seconds: float = REQUEST_SECONDS) -> StoreUse:
    """Return the use of the connection's account. Raises UnavailableError.

    `folder` is that of the server's store, if it is on this machine.
    """
    account = await request(nc, "INFO", seconds=seconds)
    limit = int(account["limits"]["max_storage"])
    free = None if folder is None else shutil.disk_usage(folder).free
    return StoreUse(int(account["storage"]), limit if limit >= 0 else None, free)
