"""Publish with many acknowledgements pending: one inbox for all, a future for each.

The client library's own `publish` costs five times the CPU, because it makes a token and a timer for each message.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import TypeAlias

import orjson
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

_LOOK_SECONDS = 0.25


class Ack(Struct, frozen=True, gc=False):
    """An acknowledgement: the message is in the stream, and on disk if the server syncs always."""

    sequence: int
    count: int = 1
    """Number of messages of a batch, of which `sequence` is the last one's."""


class Refused(Struct, frozen=True, gc=False):
    """A refusal by the stream."""

    number: int
    """JetStream's error code."""
    why: str


class Unanswered(Struct, frozen=True, gc=False):
    """No answer: the message may be in the stream or not."""

    why: str
    sent: bool = True
    """False when it never left this process."""


PublishOutcome: TypeAlias = Ack | Refused | Unanswered


class Publisher:
    """A publisher over one connection; `start` it before use, `close` it after."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._prefix = f"{nc.new_inbox()}."
        self._waiting: dict[str, asyncio.Future[PublishOutcome]] = {}
        self._tokens = itertools.count()
        self._inbox: Subscription | None = None

    async def start(self) -> None:
        """Listen for acknowledgements."""
        self._inbox = await self._nc.subscribe(f"{self._prefix}*", cb=self._on_ack)

    async def close(self) -> None:
        """Stop listening; pending messages are unanswered."""
        for token in list(self._waiting):
            self._settle(token, Unanswered("the log was closed"))
        inbox, self._inbox = self._inbox, None
        if inbox is not None and not (self._nc.is_closed or self._nc.is_draining):
            await inbox.unsubscribe()

    async def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> asyncio.Future[PublishOutcome]:
        """Send a message; the future resolves to its outcome (pass it to `outcomes`, which bounds the wait)."""
        token = format(next(self._tokens), "x")
        future: asyncio.Future[PublishOutcome] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._waiting.pop(token, None))
        self._waiting[token] = future
        try:
            await self._nc.publish(subject, data, reply=self._prefix + token, headers=headers)
        except BaseException:
            future.cancel()
            raise
        return future

    async def send(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Send a message without an acknowledgement."""
        await self._nc.publish(subject, data, headers=headers)

    async def outcomes(self, futures: Sequence[asyncio.Future[PublishOutcome]], seconds: float) -> list[PublishOutcome]:
        """Wait for the outcomes of messages; those pending after `seconds` or a lost connection are unanswered."""
        reconnects = self._nc.stats["reconnects"]
        why = f"no acknowledgement within {seconds:g} seconds"
        late = set(futures)
        while late and seconds > 0:
            # The client library reports a lost connection only to the caller that opened it, so look often.
            _, late = await asyncio.wait(late, timeout=_LOOK_SECONDS)
            seconds -= _LOOK_SECONDS
            if late and (not self._nc.is_connected or self._nc.stats["reconnects"] != reconnects):
                why, seconds = "the connection to NATS was lost", 0.0
        for future in late:
            future.set_result(Unanswered(why))
        return [future.result() for future in futures]

    async def _on_ack(self, message: Msg) -> None:
        self._settle(message.subject[len(self._prefix) :], _outcome(message))

    def _settle(self, token: str, outcome: PublishOutcome) -> None:
        future = self._waiting.get(token)
        if future is not None and not future.done():
            future.set_result(outcome)


def _outcome(message: Msg) -> PublishOutcome:
    if message.headers and message.headers.get("Status") == "503":
        return Unanswered("no stream has this subject, or JetStream is not ready")
    answer = orjson.loads(message.data)
    error = answer.get("error")
    if error is None:
        if answer.get("duplicate"):  # the server knows the id; it may have lost the message
            return Refused(0, f"its id is that of message {answer['seq']}")
        return Ack(answer["seq"], answer.get("count", 1))
    return Refused(error.get("err_code", 0), error.get("description", ""))
