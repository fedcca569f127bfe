"""The backends that the suite runs against: each gives an empty storage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runstream.objects import ObjectStorage, PosixObjects
from runstream.objects.posixflat import PosixFlatObjects
from runstream.objects.s3 import Credentials, S3Objects, open_s3
from runstream.objects.s3_location import S3Location, parse_location

BUCKETS = ("s3", "own_s3")
BACKENDS = ("posix", "posixflat", *BUCKETS)
PREFIXES = {"objects": "some/where", "elsewhere": "else/where"}
"""Where in a bucket a storage is."""
KEYS = Credentials("test-access", "test-secret")

Open = Callable[[], Awaitable[ObjectStorage]]


def opener(backend: str, request: pytest.FixtureRequest, name: str = "objects") -> Open:
    """What opens an empty storage of this backend, or, when called again, the same one; another one for each name."""
    folder: Path = request.getfixturevalue("tmp_path") / name
    if backend in BUCKETS:
        # Asked for here, so that tests of the others do not start the server.
        location = s3_location(
            request.getfixturevalue(f"{backend}_url"), request.getfixturevalue("namespace"), PREFIXES[name]
        )
        return lambda: open_at(location)

    async def on_disk() -> ObjectStorage:
        return PosixObjects(folder) if backend == "posix" else PosixFlatObjects(folder)

    return on_disk


def s3_location(url: str, bucket: str, prefix: str = PREFIXES["objects"]) -> S3Location:
    """A place in a bucket of the tests' server."""
    return parse_location(f"s3://{bucket}/{prefix}?endpoint={url}&region=eu-central-1")


async def open_at(location: S3Location) -> S3Objects:
    """The storage at this place, with keys that the tests' server takes."""
    return await open_s3(location, KEYS)
