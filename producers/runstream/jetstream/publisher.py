"""Publishing with many acknowledgements under way: one inbox for all, a future for each.

The client library's own `publish` costs five times the CPU, because it makes a token and a timer for each message.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Ack:
    """The stream has it, on disk where the server is set so."""

    sequence: int
    count: int = 1
    """How many messages of a batch; `sequence` is the last one's."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The stream said no."""

    number: int
    """JetStream's error code."""
    why: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Nobody said anything: it may be in the stream or not."""

    why: str
    sent: bool = True
    """False: it never left this process."""


Outcome: TypeAlias = Ack | Refused | Unanswered


class Publisher:
    """Publishes over one connection; `start` before, `close` after."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._prefix = f"{nc.new_inbox()}."
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._tokens = itertools.count()
        self._inbox: Subscription | None = None

    async def start(self) -> None:
        """Listen for acknowledgements."""
        self._inbox = await self._nc.subscribe(f"{self._prefix}*", cb=self._on_ack)

    async def close(self) -> None:
        """Listen no more; what was under way is unanswered."""
        for token in list(self._waiting):
            self._settle(token, Unanswered("the log was closed"))
        inbox, self._inbox = self._inbox, None
        if inbox is not None and not (self._nc.is_closed or self._nc.is_draining):
            await inbox.unsubscribe()

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str]) -> asyncio.Future[Outcome]:
        """Send a message; the future tells what became of it (give it to `outcomes`, which bounds the wait)."""
        token = format(next(self._tokens), "x")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._waiting.pop(token, None))
        self._waiting[token] = future
        try:
            await self._nc.publish(subject, data, reply=self._prefix + token, headers=dict(headers))
        except BaseException:
            future.cancel()
            raise
        return future

    async def send(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Send a message whose acknowledgement nobody waits for."""
        await self._nc.publish(subject, data, headers=dict(headers))

    async def outcomes(self, futures: Sequence[asyncio.Future[Outcome]], seconds: float) -> list[Outcome]:
        """What became of these messages, each unanswered when this long has passed or the connection was lost."""
        reconnects = self._nc.stats["reconnects"]
        why = f"no acknowledgement within {seconds:g} seconds"
        late = set(futures)
        while late and seconds > 0:
            # The client library has no event of a lost connection for those who did not open it.
            _, late = await asyncio.wait(late, timeout=_LOOK_SECONDS)
            seconds -= _LOOK_SECONDS
            if late and (not self._nc.is_connected or self._nc.stats["reconnects"] != reconnects):
                why, seconds = "the connection to NATS was lost", 0.0
        for future in late:
            future.set_result(Unanswered(why))
        return [future.result() for future in futures]

    async def _on_ack(self, message: Msg) -> None:
        self._settle(message.subject[len(self._prefix) :], _outcome(message))

    def _settle(self, token: str, outcome: Outcome) -> None:
        future = self._waiting.get(token)
        if future is not None and not future.done():
            future.set_result(outcome)


def _outcome(message: Msg) -> Outcome:
    if message.headers and message.headers.get("Status") == "503":
        return Unanswered("no stream listens, or JetStream is not up")
    answer = orjson.loads(message.data)
    error = answer.get("error")
    if error is None:
        return Ack(answer["seq"], answer.get("count", 1))
    return Refused(error.get("err_code", 0), error.get("description", ""))
