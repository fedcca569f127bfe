"""Direct gets: all messages on some subjects, in one request for each subject and without a consumer.

The server finds the messages of one subject by its index. A consumer with several filters reads the blocks of the
stream instead, which takes it hundreds of milliseconds in a log of a million messages. Any replica answers a direct
get, so an answer may lack the newest messages.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias, TypeVar

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from runstream.jetstream.api import StreamMessage, UnavailableError
from runstream.lifecycle import StrictTaskGroup, wait_for_event

_BATCH: Final = 1000
"""Messages of one answer."""
_BATCH_BYTES: Final = 4 << 20
_AT_ONCE: Final = 64
"""Requests on their way."""
_AGAIN_SECONDS: Final = 2.0
"""Silence after which a request is sent again."""
_PAUSE_SECONDS: Final = 0.2
"""Pause before a server is asked again that cannot answer now."""
_DONE: Final = ("204", "404")
"""Statuses behind the last message of an answer, and of an answer without messages."""
_TOO_MANY: Final = "413"
"""Status if more than 1024 subjects match those of a request."""
_SUBJECTS: Final = 200
"""Subjects with wildcards in one request."""
T = TypeVar("T")
S = TypeVar("S")
_ADDED: Final = frozenset(
    {
        "Nats-Stream",
        "Nats-Subject",
        "Nats-Sequence",
        "Nats-Time-Stamp",
        "Nats-Num-Pending",
        "Nats-Last-Sequence",
        "Nats-UpTo-Sequence",
    }
)
"""Headers that the server adds to those of a message."""


@dataclass(slots=True)
class _Answer:
    """The answer to one request, as far as it has come."""

    messages: list[StreamMessage] = field(default_factory=list)
    status: str = ""
    """Of its last message; empty until that has come."""
    pending: int = 0
    """Number of messages behind the answer."""
    up_to: int = 0
    """End of the stream for the answer."""
    grown: asyncio.Event = field(default_factory=asyncio.Event)


Ask: TypeAlias = Callable[[Mapping[str, object]], Awaitable[_Answer]]


async def messages_of(
    nc: Client, stream: str, subjects: Sequence[str], *, seconds: float
) -> dict[str, list[StreamMessage]]:
    """Return the messages on these subjects (wildcards allowed), in order, by subject: the literal ones with messages.

    Beyond 1024 of them, a subject with wildcards stays as it is. Raises UnavailableError after `seconds`.
    """
    if not nc.is_connected:
        # The client library would send it after a reconnect, when its caller has given up.
        raise UnavailableError(stream, "not connected")
    literal = [subject for subject in subjects if not _has_wildcard(subject)]
    wild = [subject for subject in subjects if _has_wildcard(subject)]
    try:
        async with asyncio.timeout(seconds), _requests(nc, stream) as ask:
            # The server finds what follows the last message of a literal subject by its index; of a wildcard, by
            # reading the stream to its end. So wildcards are resolved to the subjects that have messages.
            parts = [wild[at : at + _SUBJECTS] for at in range(0, len(wild), _SUBJECTS)]
            for matching in await _each(parts, lambda part: _with_messages(ask, part)):
                literal += matching
            found = [*dict.fromkeys(literal)]
            return dict(zip(found, await _each(found, lambda subject: _all_of(ask, subject)), strict=True))
    except (nats.errors.Error, OSError) as error:  # a TimeoutError, too
        raise UnavailableError(stream, str(error) or f"it was not read in {seconds:g} seconds") from error


def _has_wildcard(subject: str) -> bool:
    return "*" in subject or subject.endswith(">")


async def _each(items: Sequence[T], work: Callable[[T], Awaitable[S]]) -> list[S]:
    """Return the results of the work on each item, in order; a few at once. Raises what the work raises first."""
    free, failures = asyncio.Semaphore(_AT_ONCE), list[Exception]()
    results: dict[int, S] = {}

    async def do(number: int, item: T) -> None:
        async with free:
            try:
                results[number] = await work(item)
            except (nats.errors.Error, OSError) as error:
                failures.append(error)

    async with StrictTaskGroup() as group:
        for number, item in enumerate(items):
            group.create_task(do(number, item))
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(items))]


@asynccontextmanager
async def _requests(nc: Client, stream: str) -> AsyncIterator[Ask]:
    """Yield a function that sends a request, and returns its answer once that is complete or no more comes."""
    inbox, answers, numbers = nc.new_inbox(), dict[str, _Answer](), itertools.count()

    async def received(message: Msg) -> None:
        answer = answers.get(message.subject)
        if answer is not None:
            _add(answer, message)

    async def ask(body: Mapping[str, object]) -> _Answer:
        reply = f"{inbox}.{next(numbers)}"
        answer = answers[reply] = _Answer()
        try:
            await nc.publish(f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(body), reply=reply)
            while not answer.status:
                answer.grown.clear()
                if not await wait_for_event(answer.grown, _AGAIN_SECONDS):
                    break
        finally:
            del answers[reply]
        return answer

    subscription = await nc.subscribe(f"{inbox}.*", cb=received)
    try:
        yield ask
    finally:
        if not nc.is_closed:
            await subscription.unsubscribe()


async def _all_of(ask: Ask, subject: str) -> list[StreamMessage]:
    """Return all messages on a subject."""
    found: list[StreamMessage] = []
    while True:
        first = found[-1].sequence + 1 if found else 1
        answer = await ask({"seq": first, "next_by_subj": subject, "batch": _BATCH, "max_bytes": _BATCH_BYTES})
        found += answer.messages
        if answer.status in _DONE and not answer.pending:
            return found
        await _pause(answer)


async def _with_messages(ask: Ask, subjects: Sequence[str]) -> list[str]:
    """Return the literal subjects with messages that match one of these; these, if they are more than NATS answers."""
    found: list[str] = []
    behind: dict[str, object] = {}
    while True:
        answer = await ask({"multi_last": subjects, "batch": _BATCH, **behind})
        found += [message.subject for message in answer.messages]
        if answer.status == _TOO_MANY:
            return [*subjects]
        if answer.status in _DONE and not answer.pending:
            return found
        if answer.messages and answer.up_to:
            behind = {"seq": answer.messages[-1].sequence + 1, "up_to_seq": answer.up_to}
        await _pause(answer)


async def _pause(answer: _Answer) -> None:
    """Wait before a server is asked again that cannot answer now, as during an election."""
    if answer.status not in ("", *_DONE):
        await asyncio.sleep(_PAUSE_SECONDS)


def _add(answer: _Answer, message: Msg) -> None:
    headers = message.headers or {}
    if "Nats-Sequence" in headers:
        own = {name: value for name, value in headers.items() if name not in _ADDED}
        sequence, time = int(headers["Nats-Sequence"]), datetime.fromisoformat(headers["Nats-Time-Stamp"])
        answer.messages.append(StreamMessage(headers["Nats-Subject"], sequence, own, message.data, time))
    else:
        answer.status = headers.get("Status", "503")
        answer.pending = int(headers.get("Nats-Num-Pending", 0))
        answer.up_to = int(headers.get("Nats-UpTo-Sequence", 0))
    answer.grown.set()
