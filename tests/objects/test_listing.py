"""Listing objects, on each backend, compared with a model."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from runstream.errors import BadRequestError
from runstream.objects import BytesSource
from tests.objects.backends import Open
from tests.objects.reading import paths


async def test_a_list_is_of_a_prefix_behind_a_path(open_storage: Open) -> None:
    storage = await open_storage()
    for path in ("a/1", "a/2", "a/b/1", "ab/1", "b"):
        await storage.write(path, BytesSource(path.encode()))
    assert await paths(storage, "/a") == ["a/1", "a/2", "a/b/1", "ab/1"]
    assert await paths(storage, "a/", recursive=False) == ["a/1", "a/2"]
    assert await paths(storage, "a/", start_after="/a/1") == ["a/2", "a/b/1"]
    assert await paths(storage, "a/", start_after="/a/1", recursive=False) == ["a/2"]
    assert await paths(storage, "b") == ["b"]
    assert await paths(storage, "b", start_after="b") == []
    assert await paths(storage, "c") == []
    assert await paths(storage, "a//") == []
    assert await paths(storage, "a/./") == []
    assert await paths(storage, "a/.") == []


async def test_a_start_outside_of_the_prefix(open_storage: Open, backend: str) -> None:
    storage = await open_storage()
    await storage.write("b/1", BytesSource(b""))
    if backend == "posix":
        for start_after in ("a", "c"):
            with pytest.raises(BadRequestError, match="does not begin with the prefix"):
                await paths(storage, "b/", start_after=start_after)
    else:
        assert await paths(storage, "b/", start_after="a") == ["b/1"]
        assert await paths(storage, "b/", start_after="c") == []


async def test_pages_are_read_on(open_storage: Open) -> None:
    storage = await open_storage()
    await storage.write_all({f"n/{index:04}": b"" for index in range(1203)})
    assert await paths(storage, "n/") == [f"n/{index:04}" for index in range(1203)]
    assert await paths(storage, "n/", start_after="n/1100") == [f"n/{index:04}" for index in range(1101, 1203)]
    assert len(await paths(storage, "n/", recursive=False)) == 1203


@pytest.mark.parametrize("seed", range(3))
async def test_a_list_is_what_the_model_says(open_storage: Open, backend: str, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same cases each time
    storage = await open_storage()
    stored = _storable(_path(chance) for _ in range(60))
    await storage.write_all(dict.fromkeys(stored, b""))
    ordered = sorted(stored, key=(lambda path: path.split("/")) if backend == "posix" else None)
    assert await paths(storage) == ordered
    for _ in range(40):
        prefix = _path(chance)[: chance.randrange(6)]
        behind = [path for path in ordered if path.startswith(prefix)]
        start_after = chance.choice(behind) if behind and chance.random() < 0.5 else ""
        recursive = chance.random() < 0.5
        wanted = [
            path
            for path in behind[behind.index(start_after) + 1 if start_after else 0 :]
            if recursive or "/" not in path[len(prefix) :]
        ]
        assert await paths(storage, prefix, start_after=start_after, recursive=recursive) == wanted, (
            prefix,
            start_after,
            recursive,
        )


def _path(chance: random.Random) -> str:
    """Short names of few letters, so that they share prefixes; some with letters before and behind `/` in order."""
    names = ("".join(chance.choices("ab-0ä", k=chance.randint(1, 3))) for _ in range(chance.randint(1, 4)))
    return "/".join(names)


def _storable(found: Iterable[str]) -> list[str]:
    """Without those whose path is another one's folder: a disk cannot have both."""
    kept: list[str] = []
    for path in found:
        if not any(path == other or path.startswith(other + "/") or other.startswith(path + "/") for other in kept):
            kept.append(path)
    return kept
