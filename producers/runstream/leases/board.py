"""A KV bucket of leases: `<namespace>_executors`, `<namespace>_instances`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from nats.aio.client import Client

from runstream.errors import BadRequestError
from runstream.ids import require_token
from runstream.jetstream.api import bucket_config, ensure_stream, publish, request
from runstream.leases.lease import Lease, released
from runstream.leases.watching import LeaseWatch

_MARKER_SECONDS = 60
"""How long the end of a lease stays readable for a watcher that was away."""
_FORGET_SECONDS = 2.0


async def open_leases(nc: Client, bucket: str, *, seconds: int, replicas: int = 1) -> LeaseBoard:
    """The board of this bucket, made when it is not there; a lease on it lives for whole `seconds`, at least 2."""
    if seconds < 2:
        raise BadRequestError(
            f"a lease of {seconds} seconds is too short", code="invalidLease", hint="use at least 2 seconds"
        )
    require_token(bucket, "bucket")
    ends = {"allow_msg_ttl": True, "subject_delete_marker_ttl": _MARKER_SECONDS * 1_000_000_000}
    await ensure_stream(nc, bucket_config(bucket, replicas) | ends)
    return LeaseBoard(nc, bucket, seconds)


class LeaseBoard:
    """Where leases are held and watched; made by `open_leases`."""

    def __init__(self, nc: Client, bucket: str, seconds: int) -> None:
        self.bucket = bucket
        self.seconds = seconds
        self._nc = nc

    @property
    def reconnects(self) -> int:
        """How often the connection was made anew: whoever was cut off should not trust the end of a lease at once."""
        return int(self._nc.stats["reconnects"])

    def lease(self, key: str, value: Callable[[], bytes]) -> Lease:
        """A lease on a key, to be held by its `run`; `value` is asked at each renewal."""
        return Lease(self._nc, self.bucket, require_token(key, "key"), value, self.seconds)

    async def delete(self, key: str) -> None:
        """End whoever's lease on this key: the holder notices, and watchers are told that it was released."""
        await released(self._nc, self.bucket, require_token(key, "key"))

    async def keep(self, key: str, value: bytes, seconds: int) -> None:
        """Write a record that is no lease: it is there for `seconds` from now on, whoever lives.

        Its key has at least two tokens, so that who watches leases does not see it. Raises UnavailableError.
        """
        await publish(self._nc, f"$KV.{self.bucket}.{key}", value, {"Nats-TTL": f"{seconds}s"})

    async def server_time(self) -> datetime:
        """The time now, by the clock of the server that keeps the leases. Raises UnavailableError."""
        return datetime.fromisoformat((await request(self._nc, f"STREAM.INFO.KV_{self.bucket}"))["ts"])

    async def forget(self, key: str) -> None:
        """Take a record away. Raises UnavailableError."""
        await released(self._nc, self.bucket, key, seconds=_FORGET_SECONDS)

    @asynccontextmanager
    async def watching(self, keys: str = "*") -> AsyncIterator[LeaseWatch]:
        """Watch the keys: `held` is complete from the beginning, iterating tells every change after it.

        `keys` is a pattern of subjects' tokens; all leases without it.
        """
        watch = LeaseWatch(self._nc, self.bucket, keys)
        await watch.open()
        try:
            yield watch
        finally:
            await watch.close()
