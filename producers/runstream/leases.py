"""Leases: keys in a KV bucket that expire unless their holder renews them.

    taken -> held, renewed at least every two seconds -> released
                \\-> lost: deleted, taken by another process, or not renewed within the trust window

The newest holder of a key wins: an earlier holder finds its sequence refused. The trust window counts from the start
of the last renewal that succeeded, less a margin. At its end `held` is cleared, whatever request is in flight, because
other processes may declare the lease expired from then on. A holder that stands still cannot notice it: for others to
act in its place, each renewal reports a time between the end of the window and the expiry.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import msgspec
import structlog
from nats.aio.client import Client

from runstream.backoff import Backoff, retry
from runstream.domain.executor import Offer, Sighting
from runstream.errors import BadRequestError, InternalError
from runstream.ids import require_token
from runstream.jetstream.api import (
    WRONG_SEQUENCE,
    ApiError,
    UnavailableError,
    bucket_config,
    ensure_stream,
    last_message,
    publish,
    request,
)
from runstream.jetstream.pull import ConsumerLostError, Delivery, PullConsumer
from runstream.lifecycle import wait_for_event

RENEW_SECONDS = 2.0
"""Longest time between renewals; a shorter lease is renewed every third of its time."""
_TRUSTED = 5 / 6
"""The trust window, as a part of the lease's time."""
_ENDED_FROM_OUTSIDE = 11 / 12
"""The part of it after which a holder that stands still is ended from outside: it has had time to act by itself."""
_TAKE_ATTEMPTS = 10
_RETRY_SECONDS = 0.25
_ANSWER_SECONDS = 1.0
"""Maximum wait for the answer to one attempt of a renewal, in seconds; without a leader none comes."""
_RELEASE_SECONDS = 2.0
_FORGET_SECONDS = 2.0
_MARKER_SECONDS = 60
"""Time for which the end of a lease stays readable to a watcher that was disconnected, in seconds."""
_RELEASED_SECONDS = 24 * 3600
"""The same for its release, in seconds: a watcher that starts later tells a stopped holder from one that died."""
_WATCH_BATCH = 500
OPEN_SECONDS = 5.0
"""Time for which a watch that is not patient retries its opening, in seconds."""
_WATCH_RETRY_SECONDS = 0.5
_HOLDER = "Runstream-Holder"
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
log = structlog.get_logger()


async def open_leases(nc: Client, bucket: str, *, seconds: int, replicas: int = 1) -> LeaseBucket:
    """Open the bucket, creating it if it does not exist; its leases live for whole `seconds`, at least 2."""
    if seconds < 2:
        raise BadRequestError(
            f"a lease of {seconds} seconds is too short", code="invalidLease", hint="use at least 2 seconds"
        )
    require_token(bucket, "bucket")
    ends = {"allow_msg_ttl": True, "subject_delete_marker_ttl": _MARKER_SECONDS * 1_000_000_000}
    await ensure_stream(nc, bucket_config(bucket, replicas) | ends)
    return LeaseBucket(nc, bucket, seconds)


class LeaseBucket:
    """A KV bucket of leases, such as `<namespace>_executors`; made by `open_leases`."""

    def __init__(self, nc: Client, bucket: str, seconds: int) -> None:
        self.bucket = bucket
        self.seconds = seconds
        self._nc = nc

    @property
    def reconnects(self) -> int:
        """Number of reconnects to the server; after one, the expiry of a lease cannot be trusted at once."""
        return int(self._nc.stats["reconnects"])

    def lease(
        self, key: str, value: Callable[[], bytes], renewed: Callable[[float], None] = lambda _until: None
    ) -> Lease:
        """Return a lease on the key, held while its `run` runs; `value` is called for each renewal.

        After it, `renewed` is called with the time, by the monotonic clock, at which a holder that stands still has to
        be ended from outside: the trust window is over, and no other process can declare the lease expired yet.
        """
        return Lease(self._nc, self.bucket, require_token(key, "key"), value, self.seconds, renewed)

    async def delete(self, key: str) -> None:
        """End the lease on this key, whichever process holds it: the holder loses it, watchers see a release."""
        await _release(self._nc, self.bucket, require_token(key, "key"))

    async def keep(self, key: str, value: bytes, seconds: int) -> None:
        """Write a record that is not a lease; it lives for `seconds`, independent of any process.

        Its key has at least two tokens, so that watchers of leases do not see it. Raises UnavailableError.
        """
        await publish(self._nc, f"$KV.{self.bucket}.{key}", value, {"Nats-TTL": f"{seconds}s"})

    async def server_time(self) -> datetime:
        """Return the time now, by the clock of the server that keeps the leases. Raises UnavailableError."""
        return datetime.fromisoformat((await request(self._nc, f"STREAM.INFO.KV_{self.bucket}"))["ts"])

    async def forget(self, key: str) -> None:
        """Delete a record. Raises UnavailableError."""
        await _release(self._nc, self.bucket, key, seconds=_FORGET_SECONDS)

    @asynccontextmanager
    async def watching(self, keys: str = "*", *, patient: bool = False) -> AsyncIterator[LeaseWatch]:
        """Watch the keys: `held` is complete from the start, iterating yields every later change.

        `keys` is a pattern of subject tokens; by default all leases. A patient watch waits until NATS answers; any
        other raises UnavailableError when it does not answer within `OPEN_SECONDS`.
        """
        watch = LeaseWatch(self._nc, self.bucket, keys)
        if patient:
            await watch.open_when_there()
        else:
            await watch.open()
        try:
            yield watch
        finally:
            await watch.close()


class LeaseLostError(InternalError):
    """The lease ended while this process held it."""


class Lease:
    """A lease on one key, held while `run` runs; it can be run again after it was lost."""

    def __init__(
        self,
        nc: Client,
        bucket: str,
        key: str,
        value: Callable[[], bytes],
        seconds: int,
        renewed: Callable[[float], None] = lambda _until: None,
    ) -> None:
        self.key = key
        self.held = asyncio.Event()
        self._nc = nc
        self._bucket = bucket
        self._subject = f"$KV.{bucket}.{key}"
        self._value = value
        self._seconds = seconds
        self._renewed = renewed
        self._interval = min(seconds / 3, RENEW_SECONDS)
        self._holder = secrets.token_hex(8)
        self._sequence = 0
        self._trusted_until = 0.0
        self._touched = asyncio.Event()

    @property
    def trusted(self) -> bool:
        """True while the lease is held and no other process can declare it expired yet."""
        return self.held.is_set() and asyncio.get_running_loop().time() < self._trusted_until

    def touch(self) -> None:
        """Write the changed value now instead of with the next renewal."""
        self._touched.set()

    async def run(self) -> None:
        """Take the lease, set `held`, and hold it until cancelled; then release it.

        Raises LeaseLostError when it is lost, UnavailableError when it cannot be taken.
        """
        await self._take()
        self.held.set()
        lost = False
        try:
            while True:
                await wait_for_event(self._touched, self._interval)
                await self._renew()
        except LeaseLostError:
            # Skip the release: the holder has to act now, and a request may take seconds.
            lost = True
            raise
        finally:
            self.held.clear()
            if not lost:
                await self._give_back()

    async def _take(self) -> None:
        for _ in range(_TAKE_ATTEMPTS):
            last = await last_message(self._nc, f"KV_{self._bucket}", self._subject)
            try:
                return await self._write(0 if last is None else last.sequence)
            except ApiError as error:
                if error.number not in WRONG_SEQUENCE:
                    raise
        raise self._lost("many processes tried to take it at once")

    async def _renew(self) -> None:
        """Write the value again; retry until the trust window ends."""
        if asyncio.get_running_loop().time() >= self._trusted_until:
            raise self._lost("this process stood still for longer than its trust window")
        window = asyncio.timeout_at(self._trusted_until)
        try:
            async with window:
                await self._until_renewed()
        except TimeoutError:
            if window.expired():
                raise self._lost("it could not be renewed in time") from None
            raise

    async def _until_renewed(self) -> None:
        while True:
            self._touched.clear()
            try:
                return await self._write(self._sequence)
            except ApiError as error:
                if error.number not in WRONG_SEQUENCE:
                    raise
                await self._find_own()
            except UnavailableError as error:
                log.debug("A lease waits for NATS", action="lease_waits", key=self.key, why=error.message)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _find_own(self) -> None:
        """Go on from the last write if it is ours: a renewal without an answer may have been stored.

        Raises LeaseLostError if it is not ours.
        """
        try:
            last = await last_message(self._nc, f"KV_{self._bucket}", self._subject)
        except UnavailableError:
            return  # The next write is refused again, and the trust window bounds the retries.
        if last is None or not last.data:
            raise self._lost("it was deleted, or had expired")
        if last.headers.get(_HOLDER) != self._holder:
            raise self._lost("another process holds it")
        self._sequence = last.sequence

    async def _write(self, expected: int) -> None:
        # Published raw: the client library's `update` drops the time to live.
        begun = asyncio.get_running_loop().time()
        headers = {_EXPECTED: str(expected), "Nats-TTL": f"{self._seconds}s", _HOLDER: self._holder}
        self._sequence = await publish(
            self._nc, self._subject, self._value(), headers, seconds=min(self._interval, _ANSWER_SECONDS)
        )
        self._trusted_until = begun + self._seconds * _TRUSTED
        self._renewed(begun + self._seconds * _ENDED_FROM_OUTSIDE)

    async def _give_back(self) -> None:
        try:
            try:
                await self._release()
            except ApiError:  # a cancelled renewal may have been stored
                await self._find_own()
                await self._release()
        except (ApiError, UnavailableError, LeaseLostError) as error:
            # Lost, or out of reach: it expires by itself.
            log.debug("A lease was not released", action="lease_left", key=self.key, why=error.message)

    async def _release(self) -> None:
        await _release(
            self._nc,
            self._bucket,
            self.key,
            expected=self._sequence,
            seconds=_RELEASE_SECONDS,
            readable=_RELEASED_SECONDS,
        )

    def _lost(self, why: str) -> LeaseLostError:
        return LeaseLostError(
            f"the lease on {self.key} is lost: {why}", code="leaseLost", details={"bucket": self._bucket}
        )


async def _release(
    nc: Client,
    bucket: str,
    key: str,
    *,
    expected: int | None = None,
    seconds: float = 5.0,
    readable: int = _MARKER_SECONDS,
) -> None:
    """Mark the key as released, if its last sequence is the expected one. Raises UnavailableError, ApiError."""
    headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": f"{readable}s"}
    if expected is not None:
        headers[_EXPECTED] = str(expected)
    await publish(nc, f"$KV.{bucket}.{key}", b"", headers, seconds=seconds)


@dataclass(frozen=True, slots=True)
class LeaseChange:
    """A change of one key."""

    key: str
    what: Literal["held", "released", "expired"]
    """`held`: taken, renewed or with another value; `released`: given back or deleted; `expired`: not renewed."""
    value: bytes
    """The holder's value; empty when the key is not held."""
    sequence: int = field(default=0, compare=False)
    """The sequence of the write in the bucket; 0 for an end that happened while the watch was disconnected."""
    nanoseconds: int = field(default=0, compare=False)
    """Time of storing, since 1970 by the server's clock; 0 as above."""


@dataclass(frozen=True, slots=True)
class _HeldKey:
    sequence: int
    value: bytes
    nanoseconds: int


class LeaseWatch:
    """The held leases, and an endless iterator of changes across reconnects; made by `LeaseBucket.watching`."""

    def __init__(self, nc: Client, bucket: str, keys: str = "*") -> None:
        self._nc = nc
        self._bucket = bucket
        self._keys = keys
        self._consumer: PullConsumer | None = None
        self._held: dict[str, _HeldKey] = {}
        self._released: set[str] = set()
        self._changes: deque[LeaseChange] = deque()

    @property
    def held(self) -> dict[str, bytes]:
        """The value of each held key, as of the last change that was read."""
        return {key: held.value for key, held in self._held.items()}

    @property
    def stored(self) -> dict[str, int]:
        """Time at which each held key was last written: nanoseconds since 1970 by the server's clock."""
        return {key: held.nanoseconds for key, held in self._held.items()}

    @property
    def released(self) -> set[str]:
        """The keys that were released and not taken again, in the last day or while this watch was open."""
        return set(self._released)

    def __aiter__(self) -> LeaseWatch:
        return self

    async def __anext__(self) -> LeaseChange:
        while not self._changes:
            await self._read()
        return self._changes.popleft()

    async def open(self, seconds: float = OPEN_SECONDS) -> None:
        """Read the held leases; each difference from the known ones is a change.

        Create a lost consumer again. Raises UnavailableError after `seconds`.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + seconds

        def note(error: ConsumerLostError, delay: float) -> None:
            if self._nc.is_closed or loop.time() + delay >= give_up:
                raise error

        await retry(self._open, ConsumerLostError, Backoff(_WATCH_RETRY_SECONDS / 2), note)

    async def open_when_there(self) -> None:
        """Read as `open` does, once NATS answers."""

        def note(error: UnavailableError, _: float) -> None:
            if self._nc.is_closed:
                raise error
            log.warning("Leases cannot be watched", action="watch_waits", bucket=self._bucket, why=error.message)

        await retry(self._open, UnavailableError, Backoff(_WATCH_RETRY_SECONDS), note)

    async def _open(self) -> None:
        config = {"deliver_policy": "last_per_subject", "filter_subject": f"$KV.{self._bucket}.{self._keys}"}
        consumer = PullConsumer(self._nc, f"KV_{self._bucket}", config)
        try:
            left = (await consumer.open())["num_pending"]
            found: list[Delivery] = []
            while left > len(found):
                found += await consumer.deliveries(_WATCH_BATCH)
        except BaseException:
            await consumer.close()
            raise
        before, first = self._held, self._consumer is None
        self._held, self._released = {}, set()
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
        """Stop watching."""
        if self._consumer is not None:
            await self._consumer.close()

    async def _read(self) -> None:
        if self._consumer is None:
            raise InternalError("the watch is not open", code="internal")
        try:
            for delivery in await self._consumer.deliveries(_WATCH_BATCH):
                self._changes.append(self._apply(delivery))
        except ConsumerLostError as error:
            log.debug("A watch of leases is reopened", action="watch_lost", bucket=self._bucket, why=error.message)
            await self._consumer.close()
            await self.open_when_there()

    def _apply(self, delivery: Delivery) -> LeaseChange:
        message = delivery.message
        key = message.subject[len(f"$KV.{self._bucket}.") :]
        headers = message.headers or {}
        if headers.get("Nats-Marker-Reason") == "MaxAge":
            self._held.pop(key, None)
            return LeaseChange(key, "expired", b"", delivery.sequence, delivery.nanoseconds)
        if "KV-Operation" in headers or "Nats-Marker-Reason" in headers:
            self._held.pop(key, None)
            self._released.add(key)
            return LeaseChange(key, "released", b"", delivery.sequence, delivery.nanoseconds)
        self._released.discard(key)
        self._held[key] = _HeldKey(delivery.sequence, message.data, delivery.nanoseconds)
        return LeaseChange(key, "held", message.data, delivery.sequence, delivery.nanoseconds)


def encode_offer(offer: Offer) -> bytes:
    """Return the value of an executor's lease."""
    return msgspec.json.encode(offer)


def decode_offer(executor_id: str, value: bytes) -> Offer | None:
    """Return the offer in an executor's lease, without the fields of later versions; None if it cannot be read."""
    try:
        return msgspec.json.decode(value, type=Offer)
    except msgspec.DecodeError as error:
        log.warning("An offer cannot be read", action="offer_unreadable", executor=executor_id, error=str(error))
        return None


class ExecutorSightings:
    """The executors that hold their leases, read when a user asks."""

    def __init__(self, leases: LeaseBucket) -> None:
        """`leases` is the bucket `<namespace>_executors`."""
        self._leases = leases

    async def seen(self) -> dict[str, Sighting]:
        """Return every executor that holds its lease, by id. Raises UnavailableError."""
        async with self._leases.watching() as watch:
            held, stored = watch.held, watch.stored
        now = await self._leases.server_time()
        offers = {key: offer for key, value in held.items() if (offer := decode_offer(key, value)) is not None}
        return {key: sighting(offer, stored[key], now) for key, offer in offers.items()}


def sighting(offer: Offer, nanoseconds: int, now: datetime) -> Sighting:
    """Describe the holder of a lease at `now`, written at `nanoseconds` since 1970; both by the server's clock."""
    seen = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    skew = offer.at - nanoseconds / 1e9 if offer.at else 0.0
    return Sighting(offer, seen, max((now - seen).total_seconds(), 0.0), skew)
