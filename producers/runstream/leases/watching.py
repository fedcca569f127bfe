"""Watching leases: what is held now, then every change, across lost connections and restarted servers."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import structlog
from nats.aio.client import Client

from runstream.jetstream.api import UnavailableError
from runstream.jetstream.pull import ConsumerLostError, Delivery, PullConsumer

_BATCH = 500
_RETRY_SECONDS = 0.5
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LeaseChange:
    """What became of one key."""

    key: str
    what: Literal["held", "released", "expired"]
    """`held`: taken, renewed or with another value; `released`: given back or deleted; `expired`: not renewed."""
    value: bytes
    """What its holder says; empty when nobody holds it."""
    sequence: int = field(default=0, compare=False)
    """Of what was written, in the bucket; 0 for an end that nobody saw."""
    nanoseconds: int = field(default=0, compare=False)
    """When the server stored it, since 1970 by the server's clock; 0 for an end that nobody saw."""


@dataclass(frozen=True, slots=True)
class _Held:
    sequence: int
    value: bytes
    nanoseconds: int


class LeaseWatch:
    """What is held, and an endless iterator of changes; made by `LeaseBoard.watching`."""

    def __init__(self, nc: Client, bucket: str, keys: str = "*") -> None:
        self._nc = nc
        self._bucket = bucket
        self._keys = keys
        self._consumer: PullConsumer | None = None
        self._held: dict[str, _Held] = {}
        self._changes: deque[LeaseChange] = deque()

    @property
    def held(self) -> dict[str, bytes]:
        """The value of each key that is held, as of the last change that was read."""
        return {key: held.value for key, held in self._held.items()}

    @property
    def stored(self) -> dict[str, int]:
        """When each key that is held was written last: nanoseconds since 1970 by the server's clock."""
        return {key: held.nanoseconds for key, held in self._held.items()}

    def __aiter__(self) -> LeaseWatch:
        return self

    async def __anext__(self) -> LeaseChange:
        while not self._changes:
            await self._read()
        return self._changes.popleft()

    async def open(self) -> None:
        """Read what is held now; what differs from what was known is a change. Raises UnavailableError."""
        config = {"deliver_policy": "last_per_subject", "filter_subject": f"$KV.{self._bucket}.{self._keys}"}
        consumer = PullConsumer(self._nc, f"KV_{self._bucket}", config)
        try:
            left = (await consumer.open())["num_pending"]
            found: list[Delivery] = []
            while left > len(found):
                found += await consumer.deliveries(_BATCH)
        except BaseException:
            await consumer.close()
            raise
        before, first = self._held, self._consumer is None
        self._held = {}
        ended: dict[str, LeaseChange] = {}
        for delivery in found:
            change = self._apply(delivery)
            known = before.get(change.key)
            if change.what != "held":
                ended[change.key] = change
            elif not first and (known is None or known.sequence != delivery.sequence):
                self._changes.append(change)
        gone = before.keys() - self._held.keys()
        self._changes.extend(ended.get(key, LeaseChange(key, "expired", b"")) for key in sorted(gone))
        self._consumer = consumer

    async def close(self) -> None:
        """Watch no more."""
        if self._consumer is not None:
            await self._consumer.close()

    async def _read(self) -> None:
        if self._consumer is None:
            raise ConsumerLostError("the watch is not open", code="consumerLost")
        try:
            for delivery in await self._consumer.deliveries(_BATCH):
                self._changes.append(self._apply(delivery))
        except ConsumerLostError as error:
            log.debug("watching begins anew", action="watch_lost", bucket=self._bucket, why=error.message)
            await self._consumer.close()
            await self._open_again()

    async def _open_again(self) -> None:
        while True:
            try:
                return await self.open()
            except (UnavailableError, ConsumerLostError) as error:
                if self._nc.is_closed:
                    raise
                log.warning("leases cannot be watched", action="watch_waits", bucket=self._bucket, why=error.message)
            await asyncio.sleep(_RETRY_SECONDS)

    def _apply(self, delivery: Delivery) -> LeaseChange:
        message = delivery.message
        key = message.subject[len(f"$KV.{self._bucket}.") :]
        headers = message.headers or {}
        if headers.get("Nats-Marker-Reason") == "MaxAge":
            self._held.pop(key, None)
            return LeaseChange(key, "expired", b"", delivery.sequence, delivery.nanoseconds)
        if "KV-Operation" in headers or "Nats-Marker-Reason" in headers:
            self._held.pop(key, None)
            return LeaseChange(key, "released", b"", delivery.sequence, delivery.nanoseconds)
        self._held[key] = _Held(delivery.sequence, message.data, delivery.nanoseconds)
        return LeaseChange(key, "held", message.data, delivery.sequence, delivery.nanoseconds)
