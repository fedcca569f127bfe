"""A bucket as the client sees it: where requests go, how many at once, and which key an object has."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from obstore.store import S3Store

from runstream.objects.elements import elements, impossible
from runstream.objects.s3.location import S3Location

REQUESTS = 32
"""At once, of one process."""
UPLOADS = 4
"""Objects in several parts at once, of one process: each keeps some parts in memory."""
_LONGEST = 1024
"""Bytes of a key: S3's limit."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where requests go."""

    location: S3Location
    store: S3Store
    requests: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(REQUESTS))
    """Held while a request is under way, never while somebody else's code runs: that may need one itself."""
    uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UPLOADS))
    """Held while an object is sent in parts, instead of the other one."""

    def key(self, path: str) -> str:
        """The key of an object. Raises BadRequestError for a path that cannot be one."""
        key = self.location.prefix + "/".join(elements(path))
        try:
            short = len(key.encode()) <= _LONGEST
        except UnicodeEncodeError as error:
            raise impossible(path) from error
        if not short:
            raise impossible(path)
        return key

    def path(self, key: str) -> str:
        """The path of the object with this key."""
        return key.removeprefix(self.location.prefix)
