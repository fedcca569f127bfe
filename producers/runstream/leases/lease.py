"""One lease: taken, renewed before it ends, and given back; losing it is noticed.

    taken -> held, renewed every two seconds at least -> given back
                \\-> lost: deleted, taken by another, or not renewed within the trust window

The newest holder of a key wins: an earlier holder finds its sequence refused. The trust window counts from the
beginning of the last renewal that succeeded, less a margin: at its end `held` is cleared, whatever request is under
way, because others may declare the lease ended from then on. The key is renewed raw, because the client library's
`update` drops the time to live.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import structlog
from nats.aio.client import Client

from runstream.bounded import heard
from runstream.errors import InternalError
from runstream.jetstream.api import WRONG_SEQUENCE, ApiError, UnavailableError, last_message, publish

_HOLDER = "Runstream-Holder"
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
RENEW_SECONDS = 2.0
"""Longest time between renewals; a shorter lease is renewed every third of its time."""
_TAKE_ATTEMPTS = 10
_RETRY_SECONDS = 0.25
_RELEASE_SECONDS = 2.0
_MARKER_TTL = "60s"
log = structlog.get_logger()


class LeaseLostError(InternalError):
    """The lease ended though it was being held."""


class Lease:
    """A lease on one key; `run` holds it. May be run again after it was lost."""

    def __init__(self, nc: Client, bucket: str, key: str, value: Callable[[], bytes], seconds: int) -> None:
        self.key = key
        self.held = asyncio.Event()
        self._nc = nc
        self._bucket = bucket
        self._subject = f"$KV.{bucket}.{key}"
        self._value = value
        self._seconds = seconds
        self._interval = min(seconds / 3, RENEW_SECONDS)
        self._holder = secrets.token_hex(8)
        self._sequence = 0
        self._trusted_until = 0.0
        self._touched = asyncio.Event()

    @property
    def trusted(self) -> bool:
        """True while it is held and others cannot yet declare it ended."""
        return self.held.is_set() and asyncio.get_running_loop().time() < self._trusted_until

    def touch(self) -> None:
        """The value has changed: write it now and not only with the next renewal."""
        self._touched.set()

    async def run(self) -> None:
        """Take the lease, set `held`, and hold it until cancelled; then give it back.

        Raises LeaseLostError when it is lost, UnavailableError when it cannot be taken.
        """
        await self._take()
        self.held.set()
        lost = False
        try:
            while True:
                await heard(self._touched, self._interval)
                await self._renew()
        except LeaseLostError:
            # Nothing is given back: the holder has to act now, and a request may take seconds.
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
        raise self._lost("many want it at once")

    async def _renew(self) -> None:
        """Write the value again; tries until the trust window is over."""
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
                log.debug("a lease waits for NATS", action="lease_waits", key=self.key, why=error.message)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _find_own(self) -> None:
        """A renewal that seemed lost may have been stored: then go on from it. Raises LeaseLostError otherwise."""
        try:
            last = await last_message(self._nc, f"KV_{self._bucket}", self._subject)
        except UnavailableError:
            return  # The next write is refused again, and the trust window bounds that.
        if last is None or not last.data:
            raise self._lost("it was deleted, or had expired")
        if last.headers.get(_HOLDER) != self._holder:
            raise self._lost("another process holds it")
        self._sequence = last.sequence

    async def _write(self, expected: int) -> None:
        begun = asyncio.get_running_loop().time()
        headers = {_EXPECTED: str(expected), "Nats-TTL": f"{self._seconds}s", _HOLDER: self._holder}
        self._sequence = await publish(self._nc, self._subject, self._value(), headers, seconds=self._interval)
        self._trusted_until = begun + self._seconds * 5 / 6

    async def _give_back(self) -> None:
        try:
            try:
                await released(self._nc, self._bucket, self.key, expected=self._sequence, seconds=_RELEASE_SECONDS)
            except ApiError:  # a renewal may have been stored whose answer was not awaited any more
                await self._find_own()
                await released(self._nc, self._bucket, self.key, expected=self._sequence, seconds=_RELEASE_SECONDS)
        except (ApiError, UnavailableError, LeaseLostError) as error:
            # Lost or out of reach: then it ends, or has ended, by itself.
            log.debug("a lease was not given back", action="lease_left", key=self.key, why=error.message)

    def _lost(self, why: str) -> LeaseLostError:
        return LeaseLostError(
            f"the lease on {self.key} is lost: {why}", code="leaseLost", details={"bucket": self._bucket}
        )


async def released(nc: Client, bucket: str, key: str, *, expected: int | None = None, seconds: float = 5.0) -> None:
    """Mark the key as released, if its last sequence is the expected one. Raises UnavailableError, ApiError."""
    headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": _MARKER_TTL}
    if expected is not None:
        headers[_EXPECTED] = str(expected)
    await publish(nc, f"$KV.{bucket}.{key}", b"", headers, seconds=seconds)
