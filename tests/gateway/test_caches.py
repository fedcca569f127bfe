"""Listing and deleting caches through the API."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from runstream.api import Cache, CacheList
from runstream.cli import cache_commands
from runstream.client import Client, ClientError
from tests.gateway.world import World

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_caches_are_listed_and_deleted() -> None:
    world = World.make()
    caches = [Cache(group, key, 7, CREATED) for group in ("/project/a", "b") for key in ("k/1", "k 2")]
    world.caches.found = list(caches)
    async with world.client() as client:
        assert await client.caches.page() == CacheList(tuple(caches), "")
        assert await client.caches.page("/project/a", "k/") == CacheList((caches[0],), "")
        page = await client.caches.page(limit=3)
        assert page.caches == tuple(caches[:3])
        assert page.cursor
        await client.caches.delete("/project/a", "k/1")
        assert world.caches.found == caches[1:]
        with pytest.raises(ClientError) as raised:
            await client.caches.delete("/project/a", "k/1")
        assert (raised.value.status, raised.value.code) == (404, "cacheDoesNotExist")
    async with world.http() as http:
        for method, query in (("DELETE", ""), ("DELETE", "?group=b"), ("DELETE", "?group=b&key="), ("GET", "?limit=0")):
            assert (await http.request(method, f"/caches{query}")).status_code == 400


async def test_a_list_says_how_to_go_on_with_its_filters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Callable[[Client], Awaitable[None]]] = []
    monkeypatch.setattr(cache_commands, "with_client", asked.append)
    world = World.make()
    world.caches.found = [Cache("a b", f"k{number}", 7, CREATED) for number in range(2)]
    cache_commands.list_caches(group="a b", prefix="k", limit=1)
    async with world.client() as client:
        await asked[0](client)
        *_, last = capsys.readouterr().out.splitlines()
        words = shlex.split(last)
        given = dict(zip(words[-8::2], words[-7::2], strict=True))
        assert (given["--group"], given["--prefix"], given["--limit"]) == ("a b", "k", "1")
        following = await client.caches.page(given["--group"], given["--prefix"], cursor=given["--cursor"])
    assert following.cursor == ""
