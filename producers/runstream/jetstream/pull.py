"""A pull consumer read by callback: in the order of delivery and without a gap, or lost.

The consumer requests messages ahead, up to a window, so that a reader never waits for a round trip while the stream has
more. Heartbeats of the server tell a quiet stream from a dead consumer. Any doubt (a missed delivery, two missed
heartbeats, a new connection, a deleted consumer) raises ConsumerLostError, upon which the reader makes a new consumer
from its last position. Several processes may read one durable consumer, so its deliveries may have gaps here.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping
from typing import Any

import nats.errors
import orjson
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from runstream.errors import InternalError
from runstream.jetstream.api import REQUEST_SECONDS, UnavailableError, first_answer, request
from runstream.jetstream.failover import answers_of
from runstream.lifecycle import wait_for_event

WINDOW = 1000
_WINDOW_BYTES = 16 << 20
_HEARTBEAT_SECONDS = 1.0
_SILENCE_SECONDS = 2.5
_LOOK_SECONDS = 0.5
"""Interval of looking for a new connection and for silence, in seconds."""
_CREATE_AGAIN_SECONDS = 0.75
"""Time without an answer after which another consumer is made, in seconds."""
_PULL_SECONDS = 30.0
_INACTIVE_SECONDS = 30.0
_ENDED = frozenset({"404", "408"})
_ENDED_WELL = ("Batch Completed", "Message Size Exceeds MaxBytes")


class ConsumerLostError(UnavailableError):
    """The consumer is gone or has missed a message: make a new one."""

    def __init__(self, stream: str, why: str) -> None:
        super().__init__(f"reading {stream}", f"the consumer on {stream} is lost: {why}", code="consumerLost")


class Delivery(Struct, frozen=True, gc=False):
    """A message and its place in the stream."""

    message: Msg
    sequence: int
    nanoseconds: int
    """Time of storing, in nanoseconds since 1970 UTC."""
    pending: int
    """Number of messages that the consumer had left then."""


class PullConsumer:
    """A consumer of one stream: `open` it, read `deliveries`, `close` it."""

    def __init__(self, nc: Client, stream: str, config: Mapping[str, object], *, window: int = WINDOW) -> None:
        self._nc = nc
        self._stream = stream
        self._name = str(config.get("durable_name", secrets.token_hex(8)))
        self._config = dict(config)
        self._window = window
        self._inbox = nc.new_inbox()
        self._subscription: Subscription | None = None
        self._buffer: deque[Msg] = deque()
        self._asked = 0
        """Number of messages requested and not yet delivered."""
        self._durable = "durable_name" in config
        self._last_delivery = 0
        self._lost = ""
        self._idle = False
        """True once the server had nothing to deliver for an interval of heartbeats."""
        self._wake = asyncio.Event()
        self._received_at = 0.0
        self._reconnects = 0

    async def open(self) -> dict[str, Any]:
        """Make the consumer, request messages, and return the server's information about it."""
        info = await self._create()
        self._reconnects = self._nc.stats["reconnects"]
        self._received_at = asyncio.get_running_loop().time()
        self._subscription = await self._nc.subscribe(self._inbox, cb=self._on_message)
        await self._ask()
        return info

    async def _create(self) -> dict[str, Any]:
        """Make the consumer; without an answer make another one, which may come to another server.

        The leader of the cluster places a consumer on any server that it believes to be there. A frozen server is
        believed to be there for more than a minute.
        """
        names: list[str] = []

        async def create(seconds: float) -> tuple[str, dict[str, Any]]:
            name = self._name if self._durable or not names else secrets.token_hex(8)
            names.append(name)
            body = {"stream_name": self._stream, "config": self._whole_config(name)}
            return name, await request(self._nc, f"CONSUMER.CREATE.{self._stream}.{name}", body, seconds=seconds)

        subject = f"CONSUMER.CREATE.{self._stream}.{self._name}"
        try:
            self._name, info = await first_answer(
                self._nc, subject, create, REQUEST_SECONDS, again=_CREATE_AGAIN_SECONDS
            )
        finally:
            for name in names:
                if name != self._name:
                    await self._delete(name)
        return info

    async def _delete(self, name: str) -> None:
        if not self._durable and self._nc.is_connected:
            await self._nc.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}")

    async def close(self) -> None:
        """Stop reading, and delete an ephemeral consumer."""
        subscription, self._subscription = self._subscription, None
        if self._nc.is_closed or self._nc.is_draining:
            return
        if subscription is not None:
            await subscription.unsubscribe()
        await self._delete(self._name)

    @property
    def buffered(self) -> int:
        """Number of messages that `deliveries` returns at once."""
        return len(self._buffer)

    async def deliveries(self, limit: int, *, pending: bool = False) -> list[Delivery]:
        """Wait for the next messages, at least one. Raises ConsumerLostError.

        With `pending`, the stream had messages for this consumer: a server that has nothing to deliver lacks them now.
        """
        self._idle = False
        while not self._buffer:
            if pending and self._idle:
                self._lost = "its server lacks messages that were pending"
            if self._lost:
                raise ConsumerLostError(self._stream, self._lost)
            await self._ask()
            await self._wait()
        buffer = self._buffer
        taken = [self._delivery(buffer.popleft()) for _ in range(min(limit, len(buffer)))]
        await self._ask()
        return taken

    def _whole_config(self, name: str) -> dict[str, object]:
        config: dict[str, object] = {"name": name, "ack_policy": "none", **self._config}
        if not self._durable:
            config |= {"mem_storage": True, "num_replicas": 1, "inactive_threshold": _nanoseconds(_INACTIVE_SECONDS)}
        return config

    async def _ask(self) -> None:
        want = self._window - len(self._buffer) - self._asked
        if want < self._window // 2 or self._lost or not self._nc.is_connected:
            return
        body = {
            "batch": want,
            "max_bytes": max(_WINDOW_BYTES, 2 * self._nc.max_payload),
            "expires": _nanoseconds(_PULL_SECONDS),
            "idle_heartbeat": _nanoseconds(_HEARTBEAT_SECONDS),
        }
        self._asked += want
        try:
            await self._nc.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}", orjson.dumps(body), reply=self._inbox
            )
        except nats.errors.Error as error:
            self._lost = str(error) or type(error).__name__

    async def _wait(self) -> None:
        """Wait for a message or a failure, at most until the next look."""
        self._wake.clear()
        if self._buffer or self._lost:
            return
        if not await wait_for_event(self._wake, _LOOK_SECONDS):
            silent = asyncio.get_running_loop().time() - self._received_at
            if self._nc.is_closed:
                raise InternalError("the connection to NATS was closed", code="logClosed")
            if self._nc.stats["reconnects"] != self._reconnects:
                self._go_on()
            elif silent > _SILENCE_SECONDS:
                self._lost = f"the server was silent for {silent:.1f} seconds"
            else:
                answers_of(self._nc).awaited(self._stream)

    def _go_on(self) -> None:
        """Request messages of the same consumer over a new connection.

        The consumer may still be there, and making another one can take an election. What was sent over the old
        connection is missing; the next delivery or heartbeat shows it.
        """
        self._reconnects = self._nc.stats["reconnects"]
        self._received_at = asyncio.get_running_loop().time()
        self._asked = 0

    async def _on_message(self, message: Msg) -> None:
        self._received_at = asyncio.get_running_loop().time()
        if message.reply:
            self._asked = max(self._asked - 1, 0)
            self._buffer.append(message)
        elif not self._on_status(message.headers or {}):
            return
        self._wake.set()

    def _on_status(self, headers: Mapping[str, str]) -> bool:
        """Note a status; return whether it concerns the reader."""
        status, description = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            self._idle = True
            delivered, received = int(headers.get("Nats-Last-Consumer", 0)), self._received()
            if self._durable or delivered <= received:
                return True
            self._lost = f"{delivered} were delivered, {received} have come"
        elif status in _ENDED or description.startswith(_ENDED_WELL):
            self._asked = max(self._asked - int(headers.get("Nats-Pending-Messages", self._asked)), 0)
        else:
            self._lost = f"{status} {description}".strip()
        return True

    def _received(self) -> int:
        """Return the number of the last delivery that has come."""
        return _numbers(self._buffer[-1])[0] if self._buffer else self._last_delivery

    def _delivery(self, message: Msg) -> Delivery:
        delivery, sequence, nanoseconds, pending = _numbers(message)
        if not self._durable and delivery != self._last_delivery + 1:
            self._lost = f"delivery {delivery} came after {self._last_delivery}"
            raise ConsumerLostError(self._stream, self._lost)
        self._last_delivery = delivery
        return Delivery(message, sequence, nanoseconds, pending)


def _numbers(message: Msg) -> tuple[int, int, int, int]:
    """Return the number of the delivery, the sequence in the stream, the time of storing, and what is pending."""
    tokens = message.reply.split(".")
    # `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<delivery>.<time>.<pending>`; with a domain two more
    # in front of the stream, and a random one at the end.
    at = 5 if len(tokens) == 9 else 7
    return int(tokens[at + 1]), int(tokens[at]), int(tokens[at + 2]), int(tokens[at + 3])


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
