"""An object storage in a process without free file descriptors: each call fails by name, and keeps nothing open."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from runstream.errors import RunstreamError
from runstream.objects import ObjectStorage, PosixObjects, s3
from runstream.objects.caches import StoredCaches
from runstream.objects.port import BytesSource, chunks
from runstream.objects.posixflat import PosixFlatObjects
from runstream.open_files import out_of_files
from tests.objects.backends import Open, opener
from tests.objects.reading import paths
from tests.open_files import Opening, descriptors, free_descriptors

Call = Callable[[ObjectStorage, Path], Awaitable[None]]


async def write(storage: ObjectStorage, _: Path) -> None:
    await storage.write("new/folder/object", BytesSource(b"content"), persist=True)


async def write_all(storage: ObjectStorage, folder: Path) -> None:
    await storage.write_all({"a/bytes": b"content", "b/empty": b"", "c/file": folder / "file"})


async def create(storage: ObjectStorage, folder: Path) -> None:
    await storage.create("created/object", folder / "file")


async def read(storage: ObjectStorage, _: Path) -> None:
    async with await storage.read("there/object") as reader:
        assert b"".join([chunk async for chunk in chunks(reader)]) == b"content"


async def stat(storage: ObjectStorage, _: Path) -> None:
    assert (await storage.stat("there/object")).size == 7


async def listed(storage: ObjectStorage, _: Path) -> None:
    assert "there/object" in await paths(storage)


async def caches(storage: ObjectStorage, folder: Path) -> None:
    stored = StoredCaches(storage)
    await stored.create("/project/p", "key", folder / "file")
    assert [cache.key async for cache in stored.list()] == ["key"]


async def delete(storage: ObjectStorage, _: Path) -> None:
    await storage.write("gone", BytesSource(b"content"))
    await storage.delete("gone")


CALLS = (write, write_all, create, read, stat, listed, caches, delete)


async def tried(call: Call, storage: ObjectStorage, folder: Path) -> RunstreamError | OSError | None:
    """Make the call; return what it raised, which must be the missing descriptor."""
    failure: RunstreamError | OSError | None = None
    try:
        await call(storage, folder)
    except (RunstreamError, OSError) as error:
        failure = error
    assert failure is None or out_of_files(failure), failure
    return failure


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [PosixObjects, PosixFlatObjects])
async def test_a_refused_descriptor_anywhere_in_a_call_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[PosixObjects | PosixFlatObjects], call: Call
) -> None:
    async def prepared(name: str) -> ObjectStorage:
        storage: ObjectStorage = kind(tmp_path / name)
        (tmp_path / "file").write_bytes(b"content")
        await storage.write("there/object", BytesSource(b"content"))
        return storage

    await tried(call, await prepared("warm"), tmp_path)
    before = descriptors()
    with monkeypatch.context() as patch:
        opening = Opening(patch)
        storage = await prepared("watched")
        opening.places.clear()
        assert await tried(call, storage, tmp_path) is None
        for number, place in enumerate([*opening.places]):
            storage = await prepared(str(number))
            opening.refused = place
            await tried(call, storage, tmp_path)
            assert place != opening.refused, "it was met"
            assert descriptors() == before, place
            assert [*(tmp_path / str(number) / "tmp").iterdir()] == [], place
            assert await tried(call, storage, tmp_path) is None, place


async def without_connections(open_bucket: Open, url: str) -> ObjectStorage:
    """Open the bucket, and wait until a thread of the client has closed the connections of the storages before: each
    would leave a descriptor to the next one."""
    storage = await open_bucket()
    port = urlsplit(url).port
    while any(each.raddr and each.raddr.port == port for each in psutil.Process().net_connections("tcp")):  # noqa: ASYNC110
        await asyncio.sleep(0)  # sleeps: the client does not tell
    return storage


async def test_a_bucket_is_out_of_reach_without_descriptors_and_there_again_with_them(
    tmp_path: Path, own_s3_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_RETRIES", {"max_retries": 1, "backoff": {"init_backoff": timedelta(milliseconds=10)}})
    open_bucket = opener("own_s3", request)
    for call in (write, read):
        await (await open_bucket()).write("there/object", BytesSource(b"content"))
        storage = await without_connections(open_bucket, own_s3_url)
        before = descriptors()
        with free_descriptors(0):
            errors = await asyncio.gather(*(tried(call, storage, tmp_path) for _ in range(4)))
        said = {str(error) for error in errors if error is not None}
        assert said
        assert all(re.fullmatch(r"object storage s3://.*: too many open files \(limit \d+; .*\)", one) for one in said)
        assert not descriptors() - before
        await call(storage, tmp_path)
