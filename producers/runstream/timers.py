"""Timers: scheduled messages in a stream of their own, which survive every restart.

    <namespace>.timers.at.<key>      scheduled timers; the newest schedule of a key replaces earlier ones
    <namespace>.timers.due.<key>     due timers, until they are acknowledged by `done`

All processes share one durable consumer of due timers, so a restart misses none. A timer may be delivered twice, and
is a command that may be stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import structlog
from nats.aio.client import Client

from runstream.errors import BadRequestError
from runstream.ids import require_token
from runstream.jetstream.api import UnavailableError, ensure_stream, publish, request
from runstream.jetstream.pull import Delivery, PullConsumer

_CONSUMER = "due"
_WINDOW = 64
_RETRY_SECONDS = 0.5
log = structlog.get_logger()


async def open_timers(nc: Client, namespace: str, *, replicas: int = 1, again_seconds: float = 10.0) -> Timers:
    """Open the timers of a deployment, creating their stream if it does not exist.

    A due timer that is not `done` is redelivered after `again_seconds`; the last process to open them sets it.
    """
    prefix = f"{require_token(namespace, 'namespace')}.timers"
    config = {
        "name": f"{namespace}_TIMERS",
        "subjects": [f"{prefix}.>"],
        "storage": "file",
        "num_replicas": replicas,
        "retention": "workqueue",
        "allow_msg_schedules": True,
        "allow_msg_ttl": True,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
    }
    await ensure_stream(nc, config)
    return Timers(nc, f"{namespace}_TIMERS", prefix, again_seconds)


class DueTimer:
    """A timer whose time has come."""

    def __init__(self, nc: Client, delivery: Delivery) -> None:
        self.key = delivery.message.subject.rpartition(".")[2]
        self.payload = delivery.message.data
        self._nc = nc
        self._reply = delivery.message.reply

    async def done(self) -> None:
        """Acknowledge it; without that it is redelivered."""
        await self._nc.publish(self._reply, b"+ACK")


class Timers:
    """The timers of a deployment; made by `open_timers`."""

    def __init__(self, nc: Client, stream: str, prefix: str, again_seconds: float) -> None:
        self._nc = nc
        self._again_seconds = again_seconds
        self._stream = stream
        self._prefix = prefix

    async def schedule(self, key: str, due: datetime, payload: bytes) -> None:
        """Deliver the payload at `due` (UTC): never before, at most a second later, and at once if it is past.

        Replaces the earlier schedule of the key. Raises UnavailableError when it may not have been stored.
        """
        if due.utcoffset() != timedelta(0):
            raise BadRequestError(f"{due.isoformat()} is not in UTC", code="timeNotUtc")
        whole = due.astimezone(UTC).replace(microsecond=0)
        at = whole if whole == due else whole + timedelta(seconds=1)
        headers = {
            "Nats-Schedule": f"@at {at.strftime('%Y-%m-%dT%H:%M:%SZ')}",
            "Nats-Schedule-Target": f"{self._prefix}.due.{require_token(key, 'key')}",
        }
        await publish(self._nc, f"{self._prefix}.at.{key}", payload, headers)

    async def cancel(self, key: str) -> None:
        """Cancel the key's schedule. A timer that is due already is still delivered."""
        subject = f"{self._prefix}.at.{require_token(key, 'key')}"
        await request(self._nc, f"STREAM.PURGE.{self._stream}", {"filter": subject})

    async def due(self) -> AsyncIterator[DueTimer]:
        """Yield due timers, endlessly; the caller answers each with `done`. Waits for a server that is away."""
        consumer: PullConsumer | None = None
        try:
            while True:
                try:
                    if consumer is None:
                        consumer = await self._consumer()
                    deliveries = await consumer.deliveries(_WINDOW)
                except UnavailableError as error:
                    if self._nc.is_closed:
                        raise
                    log.debug("The consumer of timers is reopened", action="timers_lost", why=error.message)
                    if consumer is not None:
                        await consumer.close()
                        consumer = None
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                for delivery in deliveries:
                    yield DueTimer(self._nc, delivery)
        finally:
            if consumer is not None:
                await consumer.close()

    async def _consumer(self) -> PullConsumer:
        config = {
            "durable_name": _CONSUMER,
            "filter_subject": f"{self._prefix}.due.>",
            "ack_policy": "explicit",
            "ack_wait": int(self._again_seconds * 1_000_000_000),
        }
        consumer = PullConsumer(self._nc, self._stream, config, window=_WINDOW)
        try:
            await consumer.open()
        except BaseException:
            await consumer.close()
            raise
        return consumer
