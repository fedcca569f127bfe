"""A process killed in the middle of a write does not damage whole objects, and its leftovers are removed."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from runstream.objects import ObjectStorage, PosixObjects
from runstream.objects.open import open_objects
from runstream.objects.port import CHUNK_BYTES
from runstream.objects.posix import FileObjects
from runstream.objects.posixflat import PosixFlatObjects
from runstream.settings import Settings
from tests.objects.backends import open_at, s3_location
from tests.objects.reading import content, paths
from tests.objects.writer import OBJECTS, is_whole

KILLS = 8
ROOT = Path(__file__).parents[2]


async def killed_writer(backend: str, where: str, pieces: int, lines: int) -> None:
    """Run a writer and kill it when it has said so many lines."""
    words = ("-m", "tests.objects.writer", backend, where, str(pieces))
    writer = await asyncio.create_subprocess_exec(sys.executable, *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert writer.stdout is not None
        for _ in range(lines):
            assert await writer.stdout.readline() == b"piece\n"
    finally:
        writer.kill()
        await writer.wait()


async def check_whole(storage: ObjectStorage) -> None:
    for path in await paths(storage):
        assert is_whole(await content(storage, path)), path


@pytest.mark.parametrize("backend", ["posix", "posixflat"])
async def test_on_disk(tmp_path: Path, backend: str) -> None:
    chance = random.Random(backend)  # noqa: S311 - the same moments each time
    storage: FileObjects = (PosixObjects if backend == "posix" else PosixFlatObjects)(tmp_path)
    left = 0
    for _ in range(KILLS):
        await killed_writer(backend, str(tmp_path), 4, chance.randint(1, 40))
        await check_whole(storage)
        left += await storage.sweep()
        assert list((tmp_path / "tmp").iterdir()) == []
    assert left > 0
    assert len(await paths(storage)) == OBJECTS


async def test_in_a_bucket(s3_url: str, namespace: str) -> None:
    chance = random.Random(0)  # noqa: S311 - the same moments each time
    storage = await open_at(s3_location(s3_url, namespace))
    pieces = 65  # two parts, and a bit
    for _ in range(3):
        where = f"s3://{namespace}/some/where?endpoint={s3_url}&region=eu-central-1"
        await killed_writer("s3", where, pieces, chance.randint(pieces + 3, 4 * pieces))
        await check_whole(storage)
    assert 1 <= len(await paths(storage)) <= OBJECTS


async def test_a_start_removes_leftovers_and_nothing_that_is_written(tmp_path: Path) -> None:
    storage = PosixObjects(tmp_path / "objects")
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Slow:
        pieces = [b"x" * CHUNK_BYTES, b""]  # noqa: RUF012

        async def read(self, size: int) -> bytes:
            reached.set()
            await go_on.wait()
            return self.pieces.pop(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(storage.write("a", Slow()))
        await reached.wait()
        (tmp_path / "objects/tmp/leftover").write_bytes(b"half")
        await open_objects(Settings(data_dir=tmp_path))
        assert len(list((tmp_path / "objects/tmp").iterdir())) == 1
        go_on.set()
    assert (await storage.stat("a")).size == CHUNK_BYTES
    assert await storage.sweep() == 0
