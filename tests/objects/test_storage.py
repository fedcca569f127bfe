"""What every object storage promises, tried against each backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from runstream.errors import BadRequestError, NotExistError
from runstream.objects import BytesSource, FileSource, ObjectStorage
from runstream.objects.port import CHUNK_BYTES, chunks
from tests.objects.backends import BACKENDS


@pytest.fixture(params=sorted(BACKENDS))
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStorage:
    make: Callable[[Path], ObjectStorage] = BACKENDS[request.param]
    return make(tmp_path / "objects")


async def content(storage: ObjectStorage, path: str, offset: int = 0) -> bytes:
    async with await storage.read(path) as stored:
        return b"".join([chunk async for chunk in chunks(stored, offset)])


async def paths(
    storage: ObjectStorage, prefix: str = "", *, start_after: str = "", recursive: bool = True
) -> list[str]:
    return [found.path async for found in storage.list(prefix, start_after=start_after, recursive=recursive)]


@pytest.mark.parametrize("persist", [True, False])
async def test_what_is_written_is_read_from_any_offset(storage: ObjectStorage, persist: bool) -> None:
    body = bytes(range(256)) * (CHUNK_BYTES // 100)
    await storage.write("a/b/c", BytesSource(body), persist=persist)
    assert await content(storage, "a/b/c") == body
    assert await content(storage, "a/b/c", 1000) == body[1000:]
    assert await content(storage, "a/b/c", len(body) + 5) == b""
    found = await storage.stat("a/b/c")
    assert (found.path, found.size, found.modified.tzname()) == ("a/b/c", len(body), "UTC")


async def test_a_size_takes_that_much_and_leaves_the_rest(storage: ObjectStorage) -> None:
    source = BytesSource(b"0123456789")
    await storage.write("a", source, size=4)
    assert await content(storage, "a") == b"0123"
    assert await source.read(100) == b"456789"
    await storage.write("a", source, size=0)
    assert await content(storage, "a") == b""


async def test_writing_replaces_and_a_reader_keeps_what_it_opened(storage: ObjectStorage) -> None:
    await storage.write("a", BytesSource(b"old"))
    async with await storage.read("a") as old:
        await storage.write("a", BytesSource(b"newer"))
        assert await old.read(0, 100) == b"old"
    assert await content(storage, "a") == b"newer"


async def test_several_are_stored_from_memory_and_files(storage: ObjectStorage, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"from a file")
    await storage.write_all({"x/1": b"", "x/y/2": b"two", "x/3": local})
    assert await paths(storage) == ["x/1", "x/3", "x/y/2"]
    assert await content(storage, "x/3") == b"from a file"
    async with FileSource(local) as source:
        await storage.write("x/4", source)
    assert await content(storage, "x/4") == b"from a file"


async def test_a_source_that_fails_leaves_nothing(storage: ObjectStorage) -> None:
    class Failing:
        async def read(self, size: int) -> bytes:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await storage.write("a/b", Failing())
    assert await paths(storage) == []


async def test_a_missing_object_is_one_error_everywhere(storage: ObjectStorage) -> None:
    await storage.write("a/b", BytesSource(b""))
    for path in ("nothing", "a", "a/c", "a/b/c"):
        for ask in (storage.stat, storage.read, storage.delete):
            with pytest.raises(NotExistError, match="does not exist"):
                await ask(path)


@pytest.mark.parametrize("path", ["", "/", "../x", "a/../../x", "a/./b", "a\0b", "a/" + "x" * 256])
async def test_a_path_that_cannot_be_one_is_refused(storage: ObjectStorage, path: str) -> None:
    with pytest.raises(BadRequestError):
        await storage.write(path, BytesSource(b""))
    with pytest.raises(BadRequestError):
        await storage.read(path)


async def test_a_list_is_of_a_prefix_behind_a_path(storage: ObjectStorage) -> None:
    for path in ("a/1", "a/2", "a/b/1", "ab/1", "b"):
        await storage.write(path, BytesSource(path.encode()))
    assert await paths(storage, "/a") == ["a/1", "a/2", "a/b/1", "ab/1"]
    assert await paths(storage, "a/", recursive=False) == ["a/1", "a/2"]
    assert await paths(storage, "a/", start_after="/a/1") == ["a/2", "a/b/1"]
    assert await paths(storage, "c") == []


async def test_an_object_is_seen_only_when_complete(storage: ObjectStorage) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Slow:
        parts = [b"one", b"two", b""]  # noqa: RUF012

        async def read(self, size: int) -> bytes:
            if len(self.parts) == 1:
                reached.set()
                await go_on.wait()
            return self.parts.pop(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(storage.write("a", Slow()))
        await reached.wait()
        assert await paths(storage) == []
        go_on.set()
    assert await content(storage, "a") == b"onetwo"


async def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(storage: ObjectStorage) -> None:
    async def write_and_delete(name: str) -> None:
        for _ in range(20):
            await storage.write(f"deep/folder/{name}", BytesSource(b"x"), persist=True)
            await storage.delete(f"deep/folder/{name}")

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(write_and_delete(name))
    assert await paths(storage) == []


async def test_pages_are_read_on(storage: ObjectStorage) -> None:
    await storage.write_all({f"n/{index:04}": b"" for index in range(1203)})
    assert len(await paths(storage, "n/")) == 1203
