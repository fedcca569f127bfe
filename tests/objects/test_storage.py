"""What every object storage promises, tried against each backend; `backend` marks where they may differ."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runstream.errors import BadRequestError, NotExistError, RunstreamError
from runstream.objects import BytesSource, FileSource
from runstream.objects.port import CHUNK_BYTES
from runstream.objects.s3 import PART_BYTES
from tests.objects.backends import BUCKETS, Open
from tests.objects.reading import content, paths


@pytest.mark.parametrize("persist", [True, False])
async def test_what_is_written_is_read_from_any_offset(open_storage: Open, persist: bool) -> None:
    storage = await open_storage()
    body = bytes(range(256)) * (CHUNK_BYTES // 100)
    await storage.write("a/b/c", BytesSource(body), persist=persist)
    assert await content(storage, "a/b/c") == body
    assert await content(storage, "a/b/c", 1000) == body[1000:]
    assert await content(storage, "a/b/c", len(body) + 5) == b""
    found = await storage.stat("a/b/c")
    assert (found.path, found.size, found.modified.tzname()) == ("a/b/c", len(body), "UTC")


async def test_an_open_object_is_read_here_and_there(open_storage: Open) -> None:
    storage = await open_storage()
    body = b"".join(index.to_bytes(4, "big") for index in range(3 * CHUNK_BYTES // 4))
    await storage.write("a", BytesSource(body))
    async with await storage.read("a") as stored:
        assert stored.size == len(body)
        for offset, size in ((0, 10), (10, 5), (700_000, 50), (3, 400_000), (400_003, 1), (len(body) - 3, 10), (5, 0)):
            assert await stored.read(offset, size) == body[offset : offset + size]
        assert await stored.read(len(body), 1) == b""
        await stored.close()


async def test_a_size_takes_that_much_and_leaves_the_rest(open_storage: Open) -> None:
    storage = await open_storage()
    source = BytesSource(b"0123456789")
    await storage.write("a", source, size=4)
    assert await content(storage, "a") == b"0123"
    assert await source.read(100) == b"456789"
    await storage.write("a", source, size=0)
    assert await content(storage, "a") == b""


async def test_writing_replaces_and_a_reader_keeps_what_it_opened(open_storage: Open) -> None:
    storage = await open_storage()
    await storage.write("a", BytesSource(b"old"))
    async with await storage.read("a") as old:
        await storage.write("a", BytesSource(b"newer"))
        assert await old.read(0, 100) == b"old"
    assert await content(storage, "a") == b"newer"


async def test_several_are_stored_from_memory_and_files(open_storage: Open, tmp_path: Path) -> None:
    storage = await open_storage()
    local = tmp_path / "local"
    local.write_bytes(b"from a file")
    await storage.write_all({"x/1": b"", "x/y/2": b"two", "x/3": local})
    await storage.write_all({})
    assert await paths(storage) == ["x/1", "x/3", "x/y/2"]
    assert await content(storage, "x/3") == b"from a file"
    async with FileSource(local) as source:
        await storage.write("x/4", source)
    assert await content(storage, "x/4") == b"from a file"
    with pytest.raises((OSError, RunstreamError)):
        await storage.write_all({"x/5": tmp_path / "missing"})
    with pytest.raises(BadRequestError):
        await storage.write_all({"x/6": b"", "": b""})


@pytest.mark.parametrize("size", [10, PART_BYTES + 1])
async def test_a_new_object_replaces_none(
    open_storage: Open, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.objects.s3.MAX_BODY_BYTES", PART_BYTES)
    storage = await open_storage()
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"1" * size)
    second.write_bytes(b"2" * size)
    assert await storage.create("a/b", first)
    assert not await storage.create("a/b", second)
    first.unlink()
    assert await content(storage, "a/b") == b"1" * size
    await storage.delete("a/b")
    assert await storage.create("a/b", second)
    assert await content(storage, "a/b") == b"2" * size
    assert await paths(storage) == ["a/b"]


@pytest.mark.parametrize(("writers", "size"), [(8, 1), (2, PART_BYTES + 1)])
async def test_of_several_that_create_an_object_one_does(
    open_storage: Open, tmp_path: Path, writers: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.objects.s3.MAX_BODY_BYTES", PART_BYTES)
    storage = await open_storage()
    files = [tmp_path / str(number) for number in range(writers)]
    for file in files:
        file.write_bytes(file.name.encode() * size)
    created = await asyncio.gather(*(storage.create("x", file) for file in files))
    assert created.count(True) == 1
    assert await content(storage, "x") == files[created.index(True)].read_bytes()


async def test_a_source_that_fails_leaves_nothing(open_storage: Open) -> None:
    storage = await open_storage()

    class Failing:
        async def read(self, size: int) -> bytes:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await storage.write("a/b", Failing())
    assert await paths(storage) == []


async def test_a_missing_object_is_one_error_everywhere(open_storage: Open, backend: str) -> None:
    storage = await open_storage()
    await storage.write("a/b", BytesSource(b""))
    for path in ("nothing", "a", "a/c", "a/b/c"):
        for ask in (storage.stat, storage.read):
            with pytest.raises(NotExistError, match="does not exist") as raised:
                await ask(path)
            assert (raised.value.code, raised.value.details) == ("objectDoesNotExist", {"path": path})
        if backend in BUCKETS:  # it does not say whether there was one
            await storage.delete(path)
        else:
            with pytest.raises(NotExistError, match="does not exist"):
                await storage.delete(path)
    await storage.delete("a/b")
    assert await paths(storage) == []


@pytest.mark.parametrize("path", ["", "/", "../x", "a/../../x", "a/./b", "a\0b", "a/" + "x" * 256, "a/\ud800"])
async def test_a_path_that_cannot_be_one_is_refused(open_storage: Open, backend: str, path: str) -> None:
    storage = await open_storage()
    if backend == "posixflat" and path not in ("", "a\0b", "a/\ud800"):  # there, any text is a path
        await storage.write(path, BytesSource(b"x"))
        assert await content(storage, path) == b"x"
        assert await paths(storage) == [path]
        return
    for ask in (storage.read, storage.stat, storage.delete):
        with pytest.raises(BadRequestError):
            await ask(path)
    with pytest.raises(BadRequestError):
        await storage.write(path, BytesSource(b""))
    with pytest.raises(BadRequestError):
        await storage.write_all({path: b""})


@pytest.mark.parametrize(
    "path", ["a b+c", "a%2Fb/%25", "☺/ä", "a\\b", 'q?&=#*[]{}|<>"^`~', "…", "a.f", ".hidden/x", "8letters"]
)
async def test_any_other_text_is_a_path(open_storage: Open, path: str) -> None:
    storage = await open_storage()
    await storage.write(path, BytesSource(b"x"))
    assert (await storage.stat(path)).path == path
    assert await paths(storage, path[:1]) == [path]
    assert await content(storage, path) == b"x"
    await storage.delete(path)
    assert await paths(storage) == []


async def test_an_object_is_seen_only_when_complete(open_storage: Open) -> None:
    storage = await open_storage()
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


async def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(open_storage: Open) -> None:
    storage = await open_storage()

    async def write_and_delete(name: str) -> None:
        for _ in range(20):
            await storage.write(f"deep/folder/{name}", BytesSource(b"x"), persist=True)
            await storage.delete(f"deep/folder/{name}")

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(write_and_delete(name))
    assert await paths(storage) == []


async def test_a_wait_that_is_cancelled_leaves_nothing_behind(open_storage: Open) -> None:
    storage = await open_storage()
    reached = asyncio.Event()

    class Stuck:
        async def read(self, size: int) -> bytes:
            reached.set()
            await asyncio.Event().wait()
            return b""

    writing = asyncio.create_task(storage.write("a", Stuck()))
    await reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await paths(storage) == []
