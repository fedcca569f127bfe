"""The records of sessions in a KV bucket of NATS (see `runstream.gateway.sessions.Records`)."""

from __future__ import annotations

from collections.abc import Mapping

from nats.aio.client import Client

from runstream.gateway.sessions import Record
from runstream.jetstream.api import WRONG_SEQUENCE, ApiError, last_message, publish
from runstream.leases import LeaseBucket, open_leases

_ENDED_SECONDS = 60
"""Time for which the end of a record stays readable."""


class StoredRecords:
    """Records in the bucket `<namespace>_sessions`; NATS removes them when they expire."""

    def __init__(self, nc: Client, bucket: LeaseBucket) -> None:
        self._nc = nc
        self._bucket = bucket

    @classmethod
    async def open(cls, nc: Client, namespace: str, replicas: int) -> StoredRecords:
        """Open the bucket; create it where it is missing. Raises UnavailableError."""
        return cls(nc, await open_leases(nc, f"{namespace}_sessions", seconds=_ENDED_SECONDS, replicas=replicas))

    async def read(self, key: str) -> Record | None:
        """Return the record. Raises UnavailableError."""
        found = await last_message(self._nc, f"KV_{self._bucket.bucket}", self._subject(key))
        return Record(found.data, found.sequence) if found is not None and found.data else None

    async def keep(self, key: str, value: bytes, seconds: int, revision: int | None = None) -> bool:
        """Write a record; with `revision`, only if the record is still that one. Raises UnavailableError."""
        return await self._write(key, value, {"Nats-TTL": f"{seconds}s"}, revision)

    async def remove(self, key: str, revision: int | None = None) -> bool:
        """Delete a record; with `revision`, only if the record is still that one. Raises UnavailableError."""
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": f"{_ENDED_SECONDS}s"}
        return await self._write(key, b"", headers, revision)

    async def _write(self, key: str, value: bytes, headers: dict[str, str], revision: int | None) -> bool:
        if revision is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        try:
            await publish(self._nc, self._subject(key), value, headers)
        except ApiError as error:
            if error.number not in WRONG_SEQUENCE:
                raise
            return False
        return True

    async def below(self, prefix: str) -> Mapping[str, bytes]:
        """Return the records whose key has one more token than the prefix. Raises UnavailableError."""
        async with self._bucket.watching(f"{prefix}.*") as watch:
            return watch.held

    def _subject(self, key: str) -> str:
        return f"$KV.{self._bucket.bucket}.{key}"
